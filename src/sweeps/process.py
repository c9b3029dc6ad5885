"""Jobs as processes: starting them, and the summaries of those that died without one."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from src.runs.directory import RunDirectory
from src.runs.summary import SUMMARY
from src.sweeps.jobs import Job

CONSOLE = "console.log"  # what a job would have shown on the screen


def start(job: Job, environment: dict[str, str]) -> subprocess.Popen:
    """Begins a job, or goes on with it; a Ctrl-C in the terminal does not reach it."""
    job.path.mkdir(parents=True, exist_ok=True)
    with open(job.path / CONSOLE, "ab") as console:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "src.sweep_job",
                job.path,
                *job.alone(),
                "--",
                *job.resource_overrides,
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )


def record_end(job: Job, exit_code: int, interrupted: bool) -> None:
    """Writes into the summary how a job ended that could not write it itself.

    Args:
        job: Its process is over.
        exit_code: Of the process, negative for a signal.
        interrupted: The sweep is being stopped.
    """
    waited = interrupted and not job.path.exists()  # in a cluster's queue
    if waited or job.status not in ("waiting", "running"):
        return
    job.path.mkdir(parents=True, exist_ok=True)
    reason = _reason(exit_code)
    with open(job.log_file, "a", encoding="utf-8") as file:
        file.write(f"the process ended without an error message: {reason}\nits last lines:\n")
        file.writelines(_last_lines(job.path / CONSOLE))
    mark(job, "interrupted" if interrupted else "failed", reason)


def _reason(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"ended by {name}{hint}"


def _last_lines(path: Path, count: int = 60) -> list[str]:
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return lines[-count:]
    return []


def mark(job: Job, status: str, reason: str) -> None:
    """Writes how a job ended into its summary."""
    there = (job.path / SUMMARY).exists()
    task_name = job.summary.get("task_name", "train")
    run = RunDirectory(job.path, "train", task_name, resumed=there)
    run.update(status=status, reason=reason)
