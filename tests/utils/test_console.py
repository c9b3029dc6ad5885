"""The screen: whatever characters it has, and whatever brackets names hold."""

import os
import subprocess
import sys

import pytest

from src.utils.console import class_table, console
from tests import ROOT

SHOW = r"""
from src.utils.console import class_table, console, setup_logging
import logging
row = {"iou": 0.5, "dice": 0.6, "precision": 1, "recall": float("nan"), "target_pixels": 1}
console.print(class_table("mIoU \u00b1 \u2192 \u00d7", {"\u4eba\u884c\u9053": row}))
setup_logging()
logging.getLogger("src.x").info("a file name of other bytes: \udce9")
console.print("done")
"""


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": name} for name in ("ascii", "latin-1", "cp1252", "gbk", "utf-8")]
    + [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=lambda variables: "-".join(variables.values()),
)
def test_a_character_that_the_screen_does_not_have_is_another(variables):
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env=os.environ | variables, capture_output=True
    )
    assert shown.returncode == 0 and shown.stderr == b""
    assert b"50.00" in shown.stdout and b"done" in shown.stdout


def test_a_screen_that_the_user_has_told_what_to_do_does_that():
    variables = {"PYTHONIOENCODING": "ascii:backslashreplace"}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env=os.environ | variables, capture_output=True
    )
    assert rb"\u4eba\u884c\u9053" in shown.stdout


def test_brackets_in_names_are_shown():
    row = {"iou": 0.5, "dice": 0.6, "precision": 0.5, "recall": 0.5, "target_pixels": 1}
    with console.capture() as shown:
        console.print(class_table("[bold]", {"[red]": row, "wall [/other]": row}))
    assert all(name in shown.get() for name in ("[bold]", "[red]", "wall [/other]"))
