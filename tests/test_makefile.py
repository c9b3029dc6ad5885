"""What `make` installs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_extras_are_installed_by_setup_alone_with_a_stamp_a_set():
    planned = make("-n", "setup", "EXTRAS=torch,ascend").stdout
    assert "-e '.[ascend,torch]'" in planned and ".installed+ascend+torch" in planned
    for target in ("setup", "demo"):
        assert ".installed+" not in make("-n", target).stdout
    assert "[ascend]" not in make("-n", "demo", "EXTRAS=ascend").stdout


def test_an_extra_that_is_none_is_refused_before_pip(tmp_path):
    (tmp_path / ".installed").touch()
    done = make("setup", "EXTRAS=ascent", f"VENV={tmp_path}")
    assert done.returncode != 0
    assert "EXTRAS=ascent: pyproject.toml has no extra ascent" in done.stdout


@pytest.mark.parametrize("extra", ["test", "lint", "ascend", "notebook", "mlflow"])
def test_what_an_extra_needs_is_pinned(extra):
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().split()}
    for requirement in project["optional-dependencies"][extra]:
        assert re.split(r"[<>=]", requirement)[0].lower() in pinned
