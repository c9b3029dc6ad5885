"""What a shell brings to a command: completion, and the file .env."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def completions(line: str) -> list[str]:
    """What bash offers at the end of a line that begins with `python`."""
    line = line.replace("python", sys.executable, 1)
    script = (
        f"source {ROOT}/completion.bash; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; "
        'COMP_WORDS=($COMP_LINE); _src_complete; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_groups_options_and_keys_are_completed():
    assert completions("python -m src.train model=fcn") == ["fcn16s", "fcn32s", "fcn4s", "fcn8s"]
    assert completions("python -m src.train seed=1 trainer.max_") == ["trainer.max_epochs="]
    assert completions("python -m src.eval metr") == ["metrics.", "metrics="]
    assert completions("python -m http.server ") == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_the_same():
    script = (
        "compdef() {}; compadd() { shift 4; print -l -- $@ }; _default() { print default }; "
        f"source {ROOT}/completion.zsh; words=($0 -m $@); CURRENT=$#words; _src_complete"
    )

    def offered(*words: str) -> list[str]:
        command = ["zsh", "-fc", script, sys.executable, *words]
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout.split()

    models = ["model=fcn16s", "model=fcn32s", "model=fcn4s", "model=fcn8s"]
    assert offered("src.train", "model=fcn") == models
    assert offered("src.train", "seed=1", "trainer.max_") == ["trainer.max_epochs="]
    assert offered("http.server", "x") == ["default"]


def test_completion_does_not_import_mindspore():
    environment = ENVIRONMENT | {"COMP_LINE": "train model=fcn", "COMP_POINT": "15"}
    command = [sys.executable, "-X", "importtime", "-m", "src.train", "-sc", "query=bash"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "model=fcn8s" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported and not imported & {"mindspore", "cv2", "wandb", "matplotlib"}


def test_the_file_env_is_read_before_the_config(tmp_path):
    (tmp_path / ".env").write_text("MY_IMAGES=/somewhere/else\n")
    command = [sys.executable, "-m", "src.train", "--cfg", "job", "--resolve"]
    command += ["dataset.root=${oc.env:MY_IMAGES}", "-p", "dataset.root"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.strip() == "/somewhere/else", done.stderr
