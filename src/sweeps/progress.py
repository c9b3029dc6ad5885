"""The progress of a sweep on the screen: a line a job, and the newest log line of each."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.markup import escape
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from src.sweeps.jobs import Job
from src.utils.console import console

log = logging.getLogger(__name__)

_TAIL = 4096  # bytes, enough for a line


class SweepProgress:
    """A live table of the jobs at work on a terminal; on a pipe, the lines alone."""

    def __init__(self) -> None:
        self._said = ""
        self._tasks: dict[Job, TaskID] = {}
        self._live = Progress(
            TextColumn("job {task.fields[number]}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            refresh_per_second=2,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "SweepProgress":
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
        self._tasks[job] = self._live.add_task("starting", number=job.number)
        begins = "goes on" if job.has_begun else "begins"
        log.info("job %d %s: %s", job.number, begins, " ".join(job.overrides) or "nothing varies")

    def ended(self, job: Job) -> None:
        """Logs how a job ended."""
        task = self._tasks.pop(job)
        seconds = self._live.tasks[self._live.task_ids.index(task)].elapsed or 0.0
        self._live.remove_task(task)
        reason = job.summary.get("reason")
        level = logging.ERROR if job.status == "failed" else logging.INFO
        text = f"job {job.number} {job.status} after {seconds:.0f} s"
        log.log(level, "%s%s", text, f": {reason}" if reason else "")

    def show(self, running: list[Job]) -> None:
        """Takes the newest lines of the jobs' logs."""
        if not self._live.disable:
            for job in running:
                newest = newest_line(job.log_file) or "starting"
                self._live.update(self._tasks[job], description=escape(newest))


def newest_line(log_file: Path) -> str:
    """The message of a log file's last whole line; empty if there is none."""
    with suppress(OSError), open(log_file, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines = file.read().decode("utf-8", errors="replace").split("\n")[:-1]
        return lines[-1].partition(": ")[2] if lines else ""
    return ""
