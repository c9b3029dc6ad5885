"""Callbacks that watch the steps: logging, the non-finite guard."""

import logging
import math
import time

import mindspore as ms

from src.engine.callbacks.base import Callback
from src.utils.errors import UserError

log = logging.getLogger(__name__)


class MetricLogger(Callback):
    """Logs `train/loss`, `lr` and `train/images_per_second` every n-th step and at epoch ends.

    The loss is the mean over the updates since the last line, so that single batches do not shake
    the curve; `lr` is the rate of the newest of them. With a loss scaler, `train/loss_scale` and
    `train/skipped_steps` (since the start) stand beside them. Compilation and validation do not
    count into the speed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since: tuple[int, float] | None = None  # step and time from which speed is measured

    def on_train_epoch_begin(self, run_context: ms.train.RunContext) -> None:
        if self._since is not None:  # the first step compiles: the clock starts after it
            self._since = (self.trainer.state.step, time.perf_counter())

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        now = (state.step, time.perf_counter())
        if trainer.is_logged(state.step):
            metrics = {"lr": trainer.learning_rate(state.step)}
            if not math.isnan(state.mean_loss):
                metrics = {"train/loss": state.mean_loss, **metrics}
            if state.loss_scale is not None:
                metrics["train/loss_scale"] = state.loss_scale
                metrics["train/skipped_steps"] = state.skipped_steps
            if self._since is not None:
                images = (now[0] - self._since[0]) * state.batch_size
                metrics["train/images_per_second"] = images / (now[1] - self._since[1])
            trainer.log(metrics)
        if trainer.is_logged(state.step) or self._since is None:
            self._since = now


class NonFiniteGuard(Callback):
    """Stops a run whose loss is NaN or infinite, or whose loss scaler leaves out step after step.

    The loss is judged at the steps whose loss is read. One that the scaler has left out is borne:
    its weights are those before it, and the scale has become smaller.

    Args:
        max_skipped_steps: Steps in a row without an update that are borne; a scale of 65536 is
            halved to 1 within 16.
    """

    def __init__(self, max_skipped_steps: int = 50) -> None:
        super().__init__()
        if max_skipped_steps < 1:
            raise UserError(f"max_skipped_steps={max_skipped_steps}: expected at least 1")
        self.max_skipped_steps = max_skipped_steps

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        state = self.trainer.state
        if state.loss_step != state.step:
            return
        if state.skipped_in_a_row > self.max_skipped_steps:
            raise UserError(
                f"no weight update in the {state.skipped_in_a_row} steps up to step {state.step}: "
                f"gradients overflow at a loss scale of {state.loss_scale:g}, too; a summed loss "
                "(loss.reduction=sum) does so in float16: set device.amp_level=O0 "
                "device.loss_scaler=null, or device.amp_dtype=bfloat16 where the device has it"
            )
        if math.isfinite(state.loss):
            return
        if state.skipped_in_a_row:
            log.warning(
                "step %d: loss %s; its update was left out, the loss scale is now %g",
                state.step,
                state.loss,
                state.loss_scale,
            )
            return
        rate = self.trainer.learning_rate(state.step)
        raise UserError(
            f"train/loss={state.loss} at step {state.step} (epoch {state.epoch}), learning "
            f"rate {rate:.3g}: expected a finite number; lower optimizer.learning_rate, "
            "lengthen scheduler.warmup_steps or set trainer.gradient_clip"
        )
