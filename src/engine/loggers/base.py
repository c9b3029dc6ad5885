"""The base classes of loggers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from src.utils.errors import error_summary
from src.visualization.sheets import Case, Classes

log = logging.getLogger(__name__)

EndStatus = Literal["completed", "interrupted", "failed"]  # as in summary.json


class Logger:
    """Receives the scalars, figures and tables of a run. Only `log` must be implemented.

    Attributes:
        name: By which `summary.json` has its `run_id`, as `<name>_id`; None for one without an id.
    """

    name: str | None = None

    @property
    def run_id(self) -> str | None:
        """What a resumed run is given to go on with the same record; None while it is off."""
        return None

    @property
    def url(self) -> str | None:
        """The run's page, without credentials; None while it is off or without a server."""
        return None

    def start(self, config: Mapping[str, Any], resume_id: str | None) -> None:
        """Called once before anything is logged.

        Args:
            config: The resolved config of the run.
            resume_id: `run_id` of the run that goes on; None for a new one.
        """

    def log(self, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        """Takes scalars by log key (`train/loss`, `val/miou`, `lr`) of one step of one epoch.

        Both count from 1.
        """
        raise NotImplementedError

    def log_images(self, paths: Sequence[Path]) -> None:
        """Takes the finished figures of a run, PNG files."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Takes a table: texts and numbers, NaN where a number is not defined."""

    def log_masks(self, name: str, cases: Sequence[Case], classes: Classes) -> None:
        """Takes images with their labels and predictions, and what the ids in these mean."""

    def log_best(self, scores: Mapping[str, float]) -> None:
        """Takes the scores of the best validation, at the end of training."""

    def state_dict(self) -> dict[str, Any]:
        """The JSON-serialisable state that a resumed fit needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Forgets what was logged after `state_dict` gave this; an empty one is the beginning."""

    def close(self, status: EndStatus) -> None:
        """Writes out what is pending; called at a run's end, which `status` names."""


class Tracker(Logger):
    """A logger whose library or server may fail without stopping the run.

    What fails becomes one warning, and the run goes on without this logger. Subclasses give `open`,
    and do everything else through `send`.

    Attributes:
        title: What warnings call it.
        repair: What a user can do when it is off from the start.
    """

    title = ""
    repair = ""
    _run: Any = None

    def open(self, config: Mapping[str, Any], resume_id: str | None) -> Any:
        """Imports the library and returns the object that `send` hands on; see `start`."""
        raise NotImplementedError

    def start(self, config: Mapping[str, Any], resume_id: str | None) -> None:
        try:
            self._run = self.open(config, resume_id)
        except Exception as error:  # libraries raise many kinds; none may reach the run
            log.warning(
                "%s is off for this run (%s); metrics.csv has everything. Repair: %s",
                self.title,
                error_summary(error) or type(error).__name__,
                self.repair,
            )

    def send(self, action: Callable[[Any], None]) -> None:
        """Calls `action` with what `open` returned; the tracker is given up once that fails."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # see `start`
            self._run = None
            log.warning(
                "%s is off from here on (%s); metrics.csv goes on, and what was logged before "
                "is kept",
                self.title,
                error_summary(error) or type(error).__name__,
            )
