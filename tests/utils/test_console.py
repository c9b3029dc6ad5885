"""The screen: whatever characters it has, and whatever brackets names hold."""

import io
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from src.utils.console import class_table, console, html_table, progress
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


def test_a_table_as_html_has_its_cells_and_escapes_names():
    ratios = {"iou": 0.5, "dice": 0.25, "precision": 1.0, "recall": float("nan")}
    row = {**ratios, "target_pixels": 3}
    shown = html_table(class_table("by class", {"<b>": row, "road": row}))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    numbers = ["50.00", "25.00", "100.00", "–", "50.00"]
    assert cells == ["&lt;b&gt;", *numbers, "road", *numbers]


@pytest.fixture
def notebook(monkeypatch):
    """The outputs of a cell, with what each was updated by, and a clock."""
    outputs, now = [], [0.0]

    class Output:
        def __init__(self):
            self.updates = []

        def update(self, shown, raw=False):
            self.updates.append(text(shown) if isinstance(shown, Progress) else shown)

    def text(bars):
        screen = Console(file=io.StringIO(), width=100)
        screen.print(bars.get_renderable())
        return screen.file.getvalue()

    def display(shown, display_id):
        outputs.append(Output())
        return outputs[-1]

    module = SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(console, "is_jupyter", True)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return SimpleNamespace(outputs=outputs, now=now)


def test_bars_in_a_notebook_are_redrawn_in_their_place_and_do_not_flood(notebook):
    with progress() as bar:
        task = bar.add_task("reading", total=100)
        for _ in range(100):
            notebook.now[0] += 0.1
            bar.advance(task)
    [output] = notebook.outputs
    assert 15 <= len(output.updates) <= 21 and output.updates[-1] == {}


def test_a_bar_within_another_stands_below_it_in_the_same_output(notebook):
    with progress() as bar:
        task = bar.add_task("epoch 1/2", total=10)
        bar.advance(task)
        with progress() as inner:
            validation = inner.add_task("evaluating val", total=3)
            notebook.now[0] += 1
            inner.advance(validation)
        notebook.now[0] += 1
        bar.advance(task)
    with progress() as bar:
        task = bar.add_task("reading", total=1)
    first, second = notebook.outputs
    both, alone, end = first.updates
    lines = both.splitlines()
    assert "epoch 1/2" in lines[0] and "evaluating val" in lines[1] and "1/3" in lines[1]
    assert "2/10" in alone and "evaluating" not in alone
    assert end == {} and second.updates == [{}]
