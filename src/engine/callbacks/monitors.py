"""Callbacks that watch the steps: logging, the non-finite guard."""

import math
import time
from typing import Any

import mindspore as ms

from src.engine.callbacks.base import Callback
from src.utils.errors import UserError


class MetricLogger(Callback):
    """Logs `train/loss`, `lr` and `train/images_per_second` every n-th step and at epoch ends.

    The loss is the mean over the steps read since the last line, so that single batches do not
    shake the curve. Compilation and validation do not count into the speed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._losses: list[float] = []
        self._since: tuple[int, float] | None = None  # step and time from which speed is measured

    def on_train_epoch_begin(self, run_context: ms.train.RunContext) -> None:
        if self._since is not None:  # the first step compiles: the clock starts after it
            self._since = (self.trainer.state.step, time.perf_counter())

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        if state.loss_step == state.step:
            self._losses.append(state.loss)
        now = (state.step, time.perf_counter())
        if trainer.is_logged(state.step):
            metrics = {
                "train/loss": sum(self._losses) / len(self._losses),
                "lr": trainer.learning_rate(state.step),
            }
            if self._since is not None:
                images = (now[0] - self._since[0]) * state.batch_size
                metrics["train/images_per_second"] = images / (now[1] - self._since[1])
            trainer.log(metrics)
            self._losses = []
        if trainer.is_logged(state.step) or self._since is None:
            self._since = now

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self._losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses = state.get("losses", [])


class NonFiniteGuard(Callback):
    """Stops a run whose loss is NaN or infinite, at the first step whose loss is read."""

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        state = self.trainer.state
        if state.loss_step == state.step and not math.isfinite(state.loss):
            rate = self.trainer.learning_rate(state.step)
            raise UserError(
                f"train/loss={state.loss} at step {state.step} (epoch {state.epoch}), learning "
                f"rate {rate:.3g}: expected a finite number; lower optimizer.learning_rate, "
                "lengthen scheduler.warmup_steps or set trainer.gradient_clip"
            )
