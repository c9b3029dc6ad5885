"""What receives the scalars, figures and tables of a run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from src.visualization.sheets import Case

log = logging.getLogger(__name__)


class Logger(Protocol):
    """Receives scalars by log key (`train/loss`, `val/miou`, `lr`)."""

    def log(self, metrics: dict[str, float], epoch: int, step: int) -> None:
        """Takes the scalars of one step (from 1) of one epoch (from 1)."""

    def log_images(self, paths: Sequence[Path]) -> None:
        """Takes the finished figures of a run, PNG files."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Takes a table: texts and numbers, NaN where a number is not defined."""

    def log_masks(self, name: str, cases: Sequence[Case], labels: Mapping[int, str]) -> None:
        """Takes images with their labels and predictions, and what the ids in these mean."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs, as JSON can hold it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Forgets what was logged after `state_dict` gave this; an empty one is the beginning."""

    def close(self, failed: bool) -> None:
        """Writes out what is pending; called at a run's end, whatever ended it."""
