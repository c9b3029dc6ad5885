"""The base class of callbacks, and the callback that keeps the trainer's state."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import mindspore as ms

from src.device.process_group import ProcessGroup
from src.engine.evaluator import Evaluation, Evaluator
from src.engine.loggers.base import Logger
from src.engine.state import FitState
from src.engine.train_step import TrainStep
from src.runs.signals import take_back_sigterm


class TrainerView(Protocol):
    """The part of `src.engine.trainer.Trainer` that callbacks may use."""

    state: FitState
    train_step: TrainStep | None
    evaluator: Evaluator | None
    loggers: list[Logger]
    callbacks: list[ms.train.Callback]
    process_group: ProcessGroup
    output_dir: Path
    max_epochs: int
    val_every_n_epochs: int
    monitor: str
    monitor_mode: str
    monitors_ema: bool
    ema_decay: float | None
    keep_top_k: int
    save_every_n_steps: int | None
    save_every_n_epochs: int

    @property
    def val_count(self) -> int: ...

    @property
    def checkpoint_dir(self) -> Path: ...

    def log(self, metrics: dict[str, float]) -> None: ...

    def learning_rate(self, step: int) -> float: ...

    def is_due(self, every: int, step: int) -> bool: ...

    def is_logged(self, step: int) -> bool: ...

    def is_better(self, value: float, than: float | None) -> bool: ...

    def new_value(self) -> float | None: ...

    def monitored_weights(self) -> AbstractContextManager[None]: ...

    def save_weights(self, name: str) -> Path: ...

    def save_last_weights(self) -> None: ...

    def evaluate(self, evaluator: Evaluator) -> Evaluation: ...


class Callback(ms.train.Callback):
    """A MindSpore callback with access to the trainer.

    MindSpore calls, in the order of the config's list:

        on_train_begin
          on_train_epoch_begin
            on_train_step_begin, on_train_step_end     (with data sinking: once a sink)
          on_train_epoch_end
        on_train_end

    `trainer` is set before the first of them; `trainer.state` is up to date in each, and
    `TrainerView` lists what else is for use. `close` is called at the
    end of a fit in any case, also after an error.

    What a callback finds out by and by and needs to go on goes through `state_dict`, which is
    saved between two steps; a resumed fit gives it back before `on_train_begin`, or an empty one
    if nothing was saved.
    """

    trainer: TrainerView

    def state_dict(self) -> dict[str, Any]:
        """The JSON-serialisable state that a resumed fit needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`."""

    def close(self) -> None:
        """Releases what the callback holds (a live display, a file)."""


class StateTracker(Callback):
    """Keeps `trainer.state` up to date; the trainer calls it first.

    The loss is read every step on the CPU. Elsewhere reading it makes the host wait for the
    device, so only the steps that are logged are read; what lies between them is summed up there.
    """

    def on_train_begin(self, run_context: ms.train.RunContext) -> None:
        self._every_step = ms.get_context("device_target") == "CPU"
        params = run_context.original_args()
        params.cur_step_num = self.trainer.state.step  # MindSpore counts on from here
        params.epoch_num = self.trainer.max_epochs

    def on_train_epoch_begin(self, run_context: ms.train.RunContext) -> None:
        self.trainer.state.epoch = run_context.original_args().cur_epoch_num
        self.trainer.state.evaluation = None

    def on_train_step_begin(self, run_context: ms.train.RunContext) -> None:
        take_back_sigterm()

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        params = run_context.original_args()
        state, train_step = self.trainer.state, self.trainer.train_step
        state.step = params.cur_step_num
        is_logged = self.trainer.is_logged(state.step)
        if self._every_step or is_logged:
            state.loss, state.loss_step = float(params.net_outputs.asnumpy()), state.step
            if train_step.scaled:
                state.loss_scale = float(train_step.loss_scaler.scale_value.asnumpy())
                state.skipped_steps = int(train_step.log.skipped_steps.asnumpy())
                state.skipped_in_a_row = int(train_step.log.skipped_in_a_row.asnumpy())
        if is_logged:
            state.mean_loss = train_step.log.take_mean_loss()
