"""Saving and resuming a fit at step boundaries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms

from src.engine.callbacks.base import Callback
from src.engine.checkpoint import load_state, save_state
from src.runs.signals import HeldSignals

log = logging.getLogger(__name__)


class Checkpointing(Callback):
    """Keeps the newest weights as `last.ckpt`, and beside them the state that a resume starts from.

    Saves after every `trainer.save_every_n_steps`-th step and `trainer.save_every_n_epochs`-th
    epoch, at the end of training, and when the run is interrupted: inside `guard`, Ctrl-C and
    SIGTERM wait for the next step boundary. Inside a step, weights, optimizer and counts are not of
    one moment. After an epoch's last step the epoch is still open: a fit that is left during
    validation resumes with it.

    The trainer calls it after all other callbacks, so that what is saved holds what they found.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signals = HeldSignals()
        self._unsaved: dict[str, Any] | None = None  # progress at the newest step boundary

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        every, state = self.trainer.save_every_n_steps, self.trainer.state
        save = every is not None and self.trainer.is_due(every, state.step)
        if save or self.signals.held is not None or state.step % state.steps_per_epoch == 0:
            self._reach_boundary(save)

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        state = self.trainer.state
        state.epochs_ended = state.epoch
        self._reach_boundary(state.epoch % self.trainer.save_every_n_epochs == 0)

    def on_train_end(self, run_context: ms.train.RunContext) -> None:
        self.save()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Holds Ctrl-C and SIGTERM back to a step boundary, and saves what was reached there."""
        try:
            with self.signals:
                yield
        except KeyboardInterrupt:
            if self.signals.held is not None:  # else it came inside a step
                self.save()
            raise

    def restore(self) -> None:
        """Restores trainer, callbacks and loggers from the newest saved state, if there is one."""
        trainer = self.trainer
        progress = load_state(trainer.train_step, trainer.checkpoint_dir)
        if progress is None:
            log.warning("nothing was saved yet: the run starts from its beginning")
            progress = {"parts": {}}
        else:
            trainer.state.load_state_dict(progress["fit"])
            state = trainer.state
            log.info("going on after step %d, in epoch %d", state.step, state.epoch)
            trainer.save_last_weights()  # a kill may have come between the state and these
        for name, part in self._parts().items():
            part.load_state_dict(progress["parts"].get(name, {}))

    def save(self) -> None:
        """Writes the state of the newest step boundary, unless that is already written."""
        if self._unsaved is not None and self.trainer.process_group.is_main_process:
            save_state(self.trainer.train_step, self._unsaved, self.trainer.checkpoint_dir)
            self.trainer.save_last_weights()
            self._unsaved = None

    def _reach_boundary(self, save: bool) -> None:
        """Records the state at a step boundary, saves it if wanted, lets held signals through."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        self._unsaved = {"fit": self.trainer.state.state_dict(), "parts": parts}
        if save:
            self.save()
        self.signals.obey()

    def _parts(self) -> dict[str, Any]:
        """Callbacks and loggers by name; the second of a class gets a number."""
        named: dict[str, Any] = {}
        callbacks = [c for c in self.trainer.callbacks if isinstance(c, Callback)]
        for part in [*callbacks, *self.trainer.loggers]:
            name, number = type(part).__name__, 2
            while name in named:
                name, number = f"{type(part).__name__}_{number}", number + 1
            named[name] = part
        return named
