"""An Optuna study in a file: which jobs to run, and which of them are hopeless."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import Trial, TrialState

from src.runs.trial import REPORTS, VERDICT
from src.sweeps.jobs import Job, SweepDirectory
from src.sweeps.pool import Watcher
from src.sweeps.results import Result
from src.utils.files import write_json

log = logging.getLogger(__name__)

STUDY = "study.journal"


class Search(Watcher):
    """Asks an Optuna study for jobs and reports their validations and outcomes to it.

    A trial has its job's number. Trials that were at work when the search was cut off go on with
    their jobs.

    Args:
        sweep: Remembers the jobs; the study lies in its directory.
        space: Distribution by key.
        direction: "maximize" or "minimize".
        n_trials: Trials in all, failed ones and those of before a resume among them.
        sampler: Makes Optuna's sampler from a seed.
        pruner: Optuna's pruner.
        seed: Of the sampler.
    """

    def __init__(
        self,
        sweep: SweepDirectory,
        space: Mapping[str, BaseDistribution],
        direction: str,
        n_trials: int,
        sampler: Callable[..., optuna.samplers.BaseSampler],
        pruner: optuna.pruners.BasePruner,
        seed: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep = sweep
        self._space = dict(space)
        self._n_trials = n_trials
        storage = _storage(sweep.path / STUDY)
        arguments = {"storage": storage, "study_name": "sweep", "pruner": pruner}
        self.study = optuna.create_study(**arguments, direction=direction, load_if_exists=True)
        done = len(self.study.trials)
        self.study.sampler = sampler(seed=seed + done)  # the same seed would repeat the beginning
        self._trials: dict[int, Trial] = {}
        self._answered: dict[int, set[int]] = {}  # epochs by job

    def jobs(self) -> Iterator[Job]:
        """The jobs, each chosen when it is asked for, by what is known then."""
        for left in self.study.get_trials(states=(TrialState.RUNNING,)):
            yield self._job(Trial(self.study, left._trial_id))
        while len(self.study.trials) < self._n_trials:
            yield self._job(self.study.ask(self._space))

    def _job(self, trial: Trial) -> Job:
        self._trials[trial.number] = trial
        while len(self._sweep.jobs) <= trial.number:  # killed between study and job list
            known = self.study.trials[len(self._sweep.jobs)]
            self._sweep.add([f"{key}={value}" for key, value in known.params.items()])
        job = self._sweep.jobs[trial.number]
        if not job.has_begun:
            write_json(job.path / VERDICT, {"epoch": 0, "prune": False})
        return job

    def look(self, job: Job) -> None:
        """Reports new validations to the study and writes its decisions (prune or not)."""
        trial = self._trials[job.number]
        reported = self.study.trials[job.number].intermediate_values
        answered = self._answered.setdefault(job.number, set(reported))
        for report in _reports(job.path / REPORTS):
            epoch, value = report["epoch"], report["value"]
            if epoch in answered:
                continue
            answered.add(epoch)
            prune = False
            if math.isfinite(value):
                trial.report(value, epoch)
                prune = trial.should_prune()
            write_json(job.path / VERDICT, {"epoch": epoch, "prune": prune})

    def ended(self, job: Job) -> None:
        """Reports the outcome to the study, unless the job was interrupted: it will be resumed."""
        self.look(job)
        if job.status == "interrupted":
            return
        result = Result.of(job)
        if result.run.status == "pruned":
            self.study.tell(job.number, state=TrialState.PRUNED)
        elif result.run.status == "completed" and math.isfinite(result.value):
            self.study.tell(job.number, result.value)
        else:
            self.study.tell(job.number, state=TrialState.FAIL)


def _reports(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that is being written."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _storage(path: Path) -> JournalStorage:
    """Optuna's journal: lines that are only ever added, so that a kill costs the last one at most.

    The sweep's own lock keeps others away; Optuna's would outlive a kill.
    """
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock()))


class _NoLock:
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
