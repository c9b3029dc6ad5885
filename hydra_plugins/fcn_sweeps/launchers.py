"""How the jobs of a sweep are run: as processes here, or by submitit on a cluster.

Hydra loads plugins from a package of this name alone; what they do is in `src.sweeps`.
"""

import logging
import os
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from src.device.cards import VISIBLE_CARDS, visible_cards
from src.sweeps import cluster, process
from src.sweeps.jobs import Job
from src.sweeps.pool import Handle, Pool, Watcher
from src.utils.console import setup_logging
from src.utils.errors import UserError
from src.utils.processes import available_cores, default_workers

log = logging.getLogger("src.sweeps")

# Read by OpenMP and the BLAS libraries when they are loaded
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class JobLauncher(Launcher):
    """What the launchers share: each job is a `python -m src.…` of its own.

    Args:
        n_jobs: Jobs at a time.
    """

    def __init__(self, n_jobs: int) -> None:
        if type(n_jobs) is not int or n_jobs < 1:
            raise UserError(
                f"hydra.launcher.n_jobs={n_jobs}: expected a whole number of at least 1"
            )
        self.n_jobs = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        on_error = config.on_error
        if on_error not in ("continue", "stop"):
            raise UserError(f"on_error={on_error}: expected one of continue, stop")
        self._stops_on_error = on_error == "stop"

    @abstractmethod
    def start(self, job: Job) -> Handle:
        """Begins a job or goes on with it."""

    def find(self, job: Job) -> Handle | None:
        """A job that a sweep which was cut off has left in a cluster's queue."""
        return None

    def resource_overrides(self, given: Collection[str]) -> list[str]:
        """Overrides that every job gets, but for the keys that are given."""
        return []

    def run(self, jobs: Iterator[Job], watcher: Watcher) -> None:
        """Runs the jobs to their end."""
        Pool(self.start, self.n_jobs, self.find).run(jobs, watcher, self._stops_on_error)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """For sweepers that others wrote: runs a batch and gives the best monitored values."""
        from src.sweeps.results import Result

        setup_logging()
        root, resources = Path(self.config.hydra.sweep.dir), tuple(self.resource_overrides(()))
        jobs = [
            Job(number, tuple(overrides), (), root / str(number), resources)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        self.run(iter(jobs), Watcher())
        returns = []
        for job in jobs:
            done = job.status == "completed"
            value: Any = Result.of(job).value if done else UserError(job.summary.get("reason"))
            status = JobStatus.COMPLETED if done else JobStatus.FAILED
            returns.append(JobReturn(job.overrides, status=status, _return_value=value))
        return returns

    def _environment(self) -> dict[str, str]:
        """Variables for the jobs: the group of their runs in trackers, see conf/logger."""
        return {"SWEEP_GROUP": Path(self.config.hydra.sweep.dir).resolve().name}


class ProcessLauncher(JobLauncher):
    """Runs jobs on this machine, and shares its cores and cards out among those that run at a time.

    Each job sees one card alone, where there are as many; with fewer, several share one.
    """

    def __init__(self, n_jobs: int) -> None:
        super().__init__(n_jobs)
        self._placed: list[tuple[str, Handle]] = []  # the card of each job that was begun

    def start(self, job: Job) -> Handle:
        free = [name for name in _THREADS if self.n_jobs > 1 and name not in os.environ]
        environment = self._environment() | dict.fromkeys(free, str(self._share()))
        target = self.config.device.target
        cards = visible_cards(target) if self.n_jobs > 1 else []
        if not cards:
            return process.start(job, environment)
        if self.config.device.id != 0:
            raise UserError(
                f"device.id={self.config.device.id}: with hydra.launcher.n_jobs={self.n_jobs} each "
                f"job has a card of its own; choose the cards by {VISIBLE_CARDS[target]}, as 2,3"
            )
        busy = [card for card, handle in self._placed if handle.poll() is None]
        card = min(cards, key=busy.count)
        if card in busy:
            log.warning("job %d shares card %s of %d with another", job.number, card, len(cards))
        handle = process.start(job, environment | {VISIBLE_CARDS[target]: card})
        self._placed.append((card, handle))
        return handle

    def resource_overrides(self, given: Collection[str]) -> list[str]:
        if self.n_jobs == 1:
            return []
        workers = self.config.dataset.num_workers or default_workers(self._share())
        resources = {"dataset.num_workers": min(workers, self._share())}
        if self.config.device.threads is None:
            resources["device.threads"] = self._share()
        return [f"{key}={value}" for key, value in resources.items() if key not in given]

    def _share(self) -> int:
        return max(1, available_cores() // self.n_jobs)


class SubmititLauncher(JobLauncher):
    """Submits jobs to a cluster through submitit.

    Args:
        cluster: "slurm", or "local" for trying it out.
        n_jobs: Jobs at a time, waiting in the queue or at work.
        folder: Of submitit's own files.
        parameters: Resources, by submitit's names.
    """

    def __init__(self, cluster: str, n_jobs: int, folder: str, **parameters: Any) -> None:
        super().__init__(n_jobs)
        self._arguments = (cluster, folder, parameters)

    @cached_property
    def _queue(self) -> cluster.Queue:
        return cluster.Queue(*self._arguments)

    def start(self, job: Job) -> Handle:
        return self._queue.submit(job, self._environment())

    def find(self, job: Job) -> Handle | None:
        return self._queue.find(job)
