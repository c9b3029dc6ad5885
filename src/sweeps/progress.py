"""What a person sees of a sweep at work: a line a job, and the newest of each that runs."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.live import Live
from rich.table import Table

from src.sweeps.jobs import Job
from src.utils.console import console

log = logging.getLogger(__name__)

_REFRESH_SECONDS = 0.5
_TAIL = 4096  # bytes, enough for a line


class SweepProgress:
    """A live table of the jobs at work on a terminal; on a pipe, the lines alone."""

    def __init__(self) -> None:
        self._began: dict[Job, float] = {}
        self._said = ""
        self._shown = 0.0
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "SweepProgress":
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Logs a line, but not again and again."""
        if line != self._said:
            log.info("%s", line)
            self._said = line

    def began(self, job: Job) -> None:
        """Logs that a job begins or goes on."""
        self._began[job] = time.monotonic()
        begins = "goes on" if job.has_begun else "begins"
        log.info("job %d %s: %s", job.number, begins, " ".join(job.overrides) or "nothing varies")

    def ended(self, job: Job) -> None:
        """Logs how a job ended."""
        reason = job.summary.get("reason")
        level = logging.ERROR if job.status == "failed" else logging.INFO
        seconds = time.monotonic() - self._began[job]
        text = f"job {job.number} {job.status} after {seconds:.0f} s"
        log.log(level, "%s%s", text, f": {reason}" if reason else "")

    def show(self, running: list[Job]) -> None:
        """Refreshes the live table."""
        now = time.monotonic()
        if not self._live.is_started or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        table = Table(box=None)
        for name in ("job", "seconds", "newest line of its log"):
            table.add_column(name, justify="left" if "line" in name else "right", no_wrap=True)
        for job in running:
            seconds = now - self._began[job]
            newest = newest_line(job.log_file) or "starting"
            table.add_row(str(job.number), f"{seconds:.0f}", newest)
        self._live.update(table, refresh=True)


def newest_line(log_file: Path) -> str:
    """The message of a log file's last whole line; empty if there is none."""
    with suppress(OSError), open(log_file, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines = file.read().decode("utf-8", errors="replace").split("\n")[:-1]
        return lines[-1].partition(": ")[2] if lines else ""
    return ""
