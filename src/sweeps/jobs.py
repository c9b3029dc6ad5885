"""The jobs of a sweep, and the directory that remembers them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.runs.lock import LOCK, hold, is_held
from src.runs.summary import read_summary
from src.utils.errors import UserError
from src.utils.files import read_json, write_json, write_text

SWEEP_CONFIG = "multirun.yaml"  # Hydra's name for it
JOBS = "jobs.json"


@dataclass(frozen=True)
class Job:
    """One training run of a sweep, which may be waiting, at work or over."""

    number: int  # from 0; the name of its directory
    overrides: tuple[str, ...]  # that set it apart, in Hydra's grammar
    common: tuple[str, ...]  # what all jobs of the sweep are given
    path: Path
    resource_overrides: tuple[str, ...] = ()  # its part of the machine, beside other jobs

    @property
    def summary(self) -> dict[str, Any]:
        """Its `summary.json`; empty while it has none."""
        return read_summary(self.path)

    @property
    def status(self) -> str:
        """running, completed, interrupted or failed; waiting if it never began."""
        return self.summary.get("status", "waiting")

    @property
    def is_at_work(self) -> bool:
        """Whether a process is at work in its directory."""
        return is_held(self.path)

    @property
    def has_begun(self) -> bool:
        """Whether there is a run that can be gone on with."""
        return (self.path / ".hydra" / "overrides.yaml").exists()

    def arguments(self) -> list[str]:
        """The command line that begins it, or goes on with it, in its directory."""
        if self.has_begun:
            return [f"resume={self.path}", *self.resource_overrides]
        return [*self.alone(), *self.resource_overrides, f"output_dir={self.path}"]

    def alone(self) -> list[str]:
        """The command line that repeats it outside of its sweep."""
        recipe = any(override.lstrip("+").startswith("sweep=") for override in self.common)
        return [*self.common, *self.overrides, *(["hydra.mode=RUN"] if recipe else [])]

    def repeat_command(self) -> str:
        """The command line that repeats it, for a shell."""
        return shlex.join(["python", "-m", "src.train", *self.alone()])

    @property
    def log_file(self) -> Path:
        """Where its lines and tracebacks are."""
        return self.path / "train.log"


class SweepDirectory:
    """Claims a directory for one sweep; its jobs lie in `0/`, `1/` … below it.

    Args:
        path: The directory; the object holds its lock.
        common: Overrides that all jobs are given; of a resumed sweep those of its start count.
        config: The config of the sweep, as YAML.
        resumed: The directory holds a sweep, and this process goes on with it.
        resource_overrides: What all jobs are given besides, each time they are begun or resumed.

    Raises:
        UserError: The directory already holds a sweep (`resumed`: another process is at work in
            it), or it cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        common: Sequence[str],
        config: str,
        resumed: bool,
        resource_overrides: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.common, self.resource_overrides = tuple(common), tuple(resource_overrides)
        self.jobs: list[Job] = []
        key = "resume_sweep" if resumed else "hydra.sweep.dir"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = hold(path, key)
        except OSError as error:
            raise UserError(f"{key}={path}: not writable ({error.strerror})") from error
        if resumed:
            remembered = read_json(path / JOBS)
            self.common = tuple(remembered["common"])
            self.jobs = [self._job(*numbered) for numbered in enumerate(remembered["jobs"])]
        elif any(file.name != LOCK for file in path.iterdir()):
            raise UserError(
                f"{key}={path}: is not empty; give another directory, or go on with a sweep that "
                f"is there by resume_sweep={path}"
            )
        else:
            self.add()
            write_text(path / SWEEP_CONFIG, config)

    def add(self, *jobs: Sequence[str]) -> list[Job]:
        """Remembers jobs by their overrides."""
        first = len(self.jobs)
        added = [self._job(first + i, overrides) for i, overrides in enumerate(jobs)]
        self.jobs += added
        remembered = {"common": self.common, "jobs": [job.overrides for job in self.jobs]}
        write_json(self.path / JOBS, remembered)
        return added

    def _job(self, number: int, overrides: Sequence[str]) -> Job:
        path = self.path / str(number)
        return Job(number, tuple(overrides), self.common, path, self.resource_overrides)
