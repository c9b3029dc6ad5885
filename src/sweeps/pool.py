"""Runs jobs, some at a time, and watches them to their end."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from src.runs.signals import HeldSignals
from src.sweeps.jobs import Job
from src.sweeps.process import record_end
from src.sweeps.progress import SweepProgress

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1


class Handle(Protocol):
    """A job that has been started; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """The exit code, None while it is at work."""

    def send_signal(self, number: int) -> None:
        """Passes a signal on."""


class Watcher:
    """Receives the progress of jobs; the base class ignores it."""

    def look(self, job: Job) -> None:
        """The job is at work, or has just stopped; called a few times a second."""

    def ended(self, job: Job) -> None:
        """The job has ended, as its summary says."""


class Pool:
    """Keeps so many jobs at work as there are slots.

    Args:
        start: Begins a job or goes on with it.
        slots: Jobs at a time.
        find: Finds a job that a sweep which was cut off has left in a cluster's queue.
    """

    def __init__(
        self,
        start: Callable[[Job], Handle],
        slots: int,
        find: Callable[[Job], Handle | None],
    ) -> None:
        self._start = start
        self._find = find
        self._slots = slots
        self._running: dict[Job, Handle] = {}

    def run(self, jobs: Iterator[Job], watcher: Watcher, stop_on_error: bool) -> None:
        """Runs jobs, each taken when a slot is free; those that are completed count as ended.

        A Ctrl-C or SIGTERM is passed on to the jobs at work, which save their state; then it is
        raised. With `stop_on_error` no job is begun after one has failed.
        """
        stopped = False
        with SweepProgress() as progress:
            try:
                while True:
                    while len(self._running) < self._slots and not stopped:
                        job = next(jobs, None)
                        if job is None:
                            break
                        if job.status == "completed":
                            watcher.ended(job)
                        else:
                            self._begin(job, progress)
                    if not self._running:
                        return
                    time.sleep(POLL_SECONDS)
                    for job in self._ended(watcher):
                        progress.ended(job)
                        watcher.ended(job)
                        stopped |= stop_on_error and job.status == "failed"
                    progress.show(list(self._running))
            except KeyboardInterrupt as interrupt:
                self._interrupt(interrupt, progress)
                raise

    def _begin(self, job: Job, progress: SweepProgress) -> None:
        queued = self._find(job)
        if queued is not None:
            progress.say(f"job {job.number} is still in the cluster's queue, or at work there")
        while queued is None and job.is_at_work:  # left behind by a sweep that was killed
            progress.say(f"job {job.number} is still at work in another process: waiting for it")
            time.sleep(5 * POLL_SECONDS)
        progress.began(job)
        with HeldSignals():  # none may fall between a job's start and its entry here
            self._running[job] = queued or self._start(job)

    def _ended(self, watcher: Watcher | None = None) -> Iterator[Job]:
        for job, handle in list(self._running.items()):
            exit_code = handle.poll()
            if watcher is not None:
                watcher.look(job)
            if exit_code is not None:
                del self._running[job]
                record_end(job, exit_code, interrupted=watcher is None)
                yield job

    def _interrupt(self, interrupt: KeyboardInterrupt, progress: SweepProgress) -> None:
        """Passes it on; a second one stops at once, unsaved, and a third kills."""
        number = signal.SIGINT if type(interrupt) is KeyboardInterrupt else signal.SIGTERM
        log.warning(
            "%s: the %d jobs at work save their state; once more stops them at once",
            number.name,
            len(self._running),
        )
        for sent in (number, number, signal.SIGKILL):
            try:
                for handle in self._running.values():
                    handle.send_signal(sent)
                while self._running:
                    for job in self._ended():
                        progress.ended(job)
                    time.sleep(POLL_SECONDS)
                return
            except KeyboardInterrupt:
                continue
