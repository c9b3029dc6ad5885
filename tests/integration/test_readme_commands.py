"""What the README shows, run: the mistake word for word, and the commands that take seconds."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


def test_the_mistake_of_the_readme_gets_the_line_of_the_readme(workshop):
    command, line = re.search(r"^\$ python -m src\.(.*)\n(error: .*)$", README, re.M).groups()
    assert line in workshop.run(*command.split(), code=1).splitlines()


def test_help_and_config_are_shown_before_there_is_any_run(workshop):
    printed = workshop.run("predict", "--help")
    assert printed.startswith("python -m src.predict [") and "limit_samples" in printed
    assert "task_name: eval" in workshop.run("eval", "--cfg", "job", "paths.experiments_dir=none")
