"""The screen and the log file: one rich console, progress bars, tables, logging."""

import logging
import os
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# A pipe has no width: 80 columns would break tables and paths
console = Console(width=None if os.isatty(1) or "COLUMNS" in os.environ else 120)

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def setup_logging(path: Path | None = None, verbose: bool = False) -> None:
    """Sends our log lines to the screen and, with everything below INFO and every traceback, to `path`."""
    screen = RichHandler(console=console, show_path=False, show_time=True, log_time_format="[%X]", markup=False)
    screen.setLevel(logging.DEBUG if verbose else logging.INFO)
    handlers: list[logging.Handler] = [screen]
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8")
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


def progress(transient: bool = True) -> Progress:
    """A progress bar for counted work: `with progress() as bar: task = bar.add_task("reading", total=n)`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
    )
