"""The screen and the log file: one rich console, progress bars, tables, logging."""

import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from io import TextIOWrapper
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

log = logging.getLogger(__name__)

for _stream in (sys.stdout, sys.stderr):
    # A screen without a character of ours (PYTHONIOENCODING, LC_ALL=C, a code page) shows another
    if isinstance(_stream, TextIOWrapper) and _stream.errors in ("strict", "surrogateescape"):
        _stream.reconfigure(errors="replace")

# A pipe has no width: 80 columns would break tables and paths. Names of classes, runs and files
# may hold brackets, which are no markup.
console = Console(width=None if os.isatty(1) or "COLUMNS" in os.environ else 120, markup=False)

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFile(logging.FileHandler):
    """A log file that a full disk leaves with lines missing, not the screen with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def setup_logging(path: Path | None = None, verbose: bool = False) -> None:
    """Sends our log lines to the screen, and to `path` with DEBUG lines and every traceback."""
    screen = RichHandler(console=console, show_path=False, show_time=True, log_time_format="[%X]")
    screen.setLevel(logging.DEBUG if verbose else logging.INFO)
    handlers: list[logging.Handler] = [screen]
    if path is not None:
        file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter(_LINE))
        handlers.append(file)
    root = logging.getLogger("src")
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    root.propagate = False


class NotebookProgress(Progress):
    """Bars in the output of a notebook's cell, redrawn in their place, at most twice a second.

    Those that are started while others are shown stand below them, in the same output.
    rich's own need ipywidgets, and draw from a thread that can take log lines away with them.
    """

    _shown: ClassVar[list["NotebookProgress"]] = []  # the first has the output

    def start(self) -> None:
        self._shown.append(self)
        if self._shown[0] is self:
            from IPython.display import display

            self._drawn = time.monotonic()
            self._output = display(self, display_id=True)

    def stop(self) -> None:
        if self in self._shown:
            if self._shown[0] is self:
                self._output.update({}, raw=True)
            del self._shown[self._shown.index(self) :]

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._shown and self._shown[0] is self:
            for bar in self._shown[1:]:
                yield from bar.get_renderables()

    def update(self, *args: Any, **fields: Any) -> None:
        super().update(*args, **fields)
        self._redraw()

    def advance(self, *args: Any, **fields: Any) -> None:
        super().advance(*args, **fields)
        self._redraw()

    def _redraw(self) -> None:
        first = self._shown[0] if self._shown else None
        if first is not None and time.monotonic() - first._drawn >= 0.5:
            first._drawn = time.monotonic()
            first._output.update(first)


def progress(*columns: ProgressColumn) -> Progress:
    """Bars for counted work: `with progress() as bar: task = bar.add_task("reading", total=n)`.

    Live on a terminal and in a notebook, and gone in the end; those that are begun while others are
    shown stand below them.
    """
    columns = columns or (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if console.is_jupyter:
        return NotebookProgress(*columns)
    # on a pipe it would leave blank lines
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def percent(value: float) -> str:
    """A fraction as a percentage; "–" for NaN, a class that does not occur."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def scores_table(title: str, scores: dict[str, float]) -> Table:
    """Fractions as one row of percentages."""
    table = Table(title=title, title_justify="left")
    for name in scores:
        table.add_column(name, justify="right")
    table.add_row(*map(percent, scores.values()))
    return table


def class_table(title: str, per_class: dict[str, dict[str, float]]) -> Table:
    """IoU, Dice, precision, recall and share of the target pixels of each class, in percent."""
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in ("IoU", "Dice (F1)", "precision", "recall", "share of pixels"):
        table.add_column(name, justify="right")
    total = sum(row["target_pixels"] for row in per_class.values()) or 1
    for name, row in per_class.items():
        ratios = [percent(row[key]) for key in ("iou", "dice", "precision", "recall")]
        table.add_row(name, *ratios, percent(row["target_pixels"] / total))
    return table


def html_table(table: Table) -> str:
    """The cells of a table, and its title, as HTML."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    sides = [column.justify for column in table.columns]

    def line(tag: str, cells: Iterable[Any]) -> str:
        pairs = zip(cells, sides, strict=True)
        return "".join(
            f'<{tag} style="text-align: {side}">{escape(str(cell))}</{tag}>' for cell, side in pairs
        )

    head = line("th", (column.header for column in table.columns))
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    caption = f'<caption style="text-align: left">{escape(str(table.title))}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@contextmanager
def stderr_to_log() -> Iterator[None]:
    """Sends what libraries write to the error stream into our log, as DEBUG lines.

    Where a device's libraries are missing, MindSpore says so in a page of lines of its own.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        screen = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            file.seek(0)
            if text := file.read().strip():
                log.debug("MindSpore wrote:\n%s", text)


SCORE_NAMES = {"miou": "mIoU", "macc": "mean acc.", "pixel_acc": "pixel acc.", "fwiou": "fw IoU"}
