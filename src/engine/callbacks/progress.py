"""The progress of a fit on the screen."""

import logging
import math
import time

import mindspore as ms
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from src.engine.callbacks.base import Callback
from src.utils.console import progress

log = logging.getLogger(__name__)


class ProgressBar(Callback):
    """Epoch, step, loss, learning rate, images/s, time left and the best value so far.

    A live bar on a terminal and in a notebook; one line an epoch in the log in any case.

    Args:
        slow_epoch_seconds: An epoch that takes longer is announced with `quick_command`.
        quick_command: What to type for a quick first run; None announces nothing.
    """

    def __init__(self, slow_epoch_seconds: float = 120, quick_command: str | None = None) -> None:
        super().__init__()
        self.slow_epoch_seconds = slow_epoch_seconds
        self.quick_command = quick_command
        self._bar: Progress | None = None
        self._epoch_began: tuple[int, float] | None = None  # step and time

    def on_train_begin(self, run_context: ms.train.RunContext) -> None:
        state = self.trainer.state
        self._began = time.perf_counter()
        self._first: tuple[int, float] | None = None  # step and time when compilation was over
        self._announced = False
        if ms.get_context("mode") == ms.GRAPH_MODE:
            log.info("compiling the training graph, about 10 s (the first step waits for it)")
        self._bar = progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
        )
        total = state.steps_per_epoch * self.trainer.max_epochs
        self._task = self._bar.add_task("training", total=total, completed=state.step, numbers="")
        self._bar.start()

    def on_train_epoch_begin(self, run_context: ms.train.RunContext) -> None:
        self._epoch_began = (self.trainer.state.step, time.perf_counter())
        if self._first is not None and not self._announced:  # a validation lies between
            self._first = self._epoch_began

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        state = self.trainer.state
        now = self._step_ended = time.perf_counter()
        if self._first is None:
            made = state.step - self._epoch_began[0]
            first = "first step" if made == 1 else f"first {made} steps"
            self._epoch_began = self._first = (state.step, now)
            log.info("%s done after %.0f s", first, now - self._began)
        elif not self._announced and (state.step - self._first[0] >= 3 or self._epoch_is_over()):
            self._announced = True
            self._announce((now - self._first[1]) / (state.step - self._first[0]))
        self._bar.update(
            self._task,
            completed=state.step,
            description=f"epoch {state.epoch}/{self.trainer.max_epochs}",
            numbers=self._numbers(),
        )

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        state, trainer = self.trainer.state, self.trainer
        scores = ""
        if state.evaluation is not None:
            value = state.metrics[trainer.monitor]
            best = state.best.get(trainer.monitor, math.nan)
            scores = f"  {trainer.monitor} {value:.4f}  best {best:.4f}"
            scores += f" (epoch {state.best['epoch']})" if state.best else ""
        log.info("epoch %d/%d  %s%s", state.epoch, trainer.max_epochs, self._numbers(), scores)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _epoch_is_over(self) -> bool:
        return self.trainer.state.step % self.trainer.state.steps_per_epoch == 0

    def _numbers(self) -> str:
        state = self.trainer.state
        text = f"loss {state.loss:.4f}  lr {self.trainer.learning_rate(state.step):.2e}"
        if self._epoch_began is not None and state.step > self._epoch_began[0]:
            step, began = self._epoch_began
            speed = (state.step - step) * state.batch_size / (self._step_ended - began)
            text += f"  {speed:.1f} images/s"
        return text

    def _announce(self, seconds: float) -> None:
        steps = self.trainer.state.steps_per_epoch
        epoch = steps * seconds
        log.info(
            "an epoch takes about %s (%d steps of %.2f s), %d epochs about %s, besides validation",
            duration(epoch),
            steps,
            seconds,
            self.trainer.max_epochs,
            duration(epoch * self.trainer.max_epochs),
        )
        if self.quick_command and epoch > self.slow_epoch_seconds:
            log.info("quicker, for a first look: %s", self.quick_command)


def duration(seconds: float) -> str:
    """Seconds in words, rounded for reading."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
