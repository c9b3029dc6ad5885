"""The point between two steps of a fit: the one place where it can be saved and left."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from src.engine.callbacks.base import Callback
from src.engine.checkpoint import load_state, save_state
from src.engine.interrupts import Interrupts

if TYPE_CHECKING:
    from src.engine.trainer import Trainer

log = logging.getLogger(__name__)


class Boundary:
    """Saves a trainer's fit between two steps, and restores it.

    Inside a step, weights, optimizer and counts are not of one moment. After an epoch's last step
    the epoch is still open: a fit that is left during validation resumes with it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.interrupts = Interrupts()
        self._trainer = trainer
        self._progress: dict[str, Any] | None = None  # at the newest boundary, if unsaved

    def reach(self, save: bool) -> None:
        """Saves if wanted, then lets a Ctrl-C or SIGTERM through that was held back."""
        state = self._trainer.state
        if save or self.interrupts.held is not None or state.step % state.steps_per_epoch == 0:
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            self._progress = {"fit": state.state_dict(), "parts": parts}
        if save:
            self.save()
        self.interrupts.obey()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Holds Ctrl-C and SIGTERM back to a boundary, and saves what was reached there."""
        try:
            with self.interrupts:
                yield
        except KeyboardInterrupt:
            if self.interrupts.held is not None:  # else it came inside a step
                self.save()
            raise

    def restore(self) -> None:
        """Puts trainer, callbacks and loggers where the newest saved state was, or at the start."""
        trainer = self._trainer
        progress = load_state(trainer.step, trainer.checkpoint_dir)
        if progress is None:
            log.warning("nothing was saved yet: the run starts from its beginning")
            progress = {"parts": {}}
        else:
            trainer.state.load_state_dict(progress["fit"])
            state = trainer.state
            log.info("going on after step %d, in epoch %d", state.step, state.epoch)
            trainer.save_last()  # a kill may have come between the state and these
        for name, part in self._parts().items():
            part.load_state_dict(progress["parts"].get(name, {}))

    def save(self) -> None:
        """Writes what the newest boundary reached, unless it is written."""
        if self._progress is not None and self._trainer.ranks.first:
            save_state(self._trainer.step, self._progress, self._trainer.checkpoint_dir)
            self._trainer.save_last()
            self._progress = None

    def _parts(self) -> dict[str, Any]:
        """Callbacks and loggers by name; the second of a class gets a number."""
        named: dict[str, Any] = {}
        callbacks = [c for c in self._trainer.callbacks if isinstance(c, Callback)]
        for part in [*callbacks, *self._trainer.loggers]:
            name, number = type(part).__name__, 2
            while name in named:
                name, number = f"{type(part).__name__}_{number}", number + 1
            named[name] = part
        return named
