"""The learning rate of every step, as a table that is filled once and looked up inside the graph.

A schedule is made for a run: `cosine(learning_rate=…, total_steps=…, …)`. Each begins with
`warmup_steps` steps of linear warm-up, at most half of the run, and lays its own curve over the
steps that remain.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor, nn, ops

from src.utils.errors import UserError

log = logging.getLogger(__name__)


class Schedule(nn.learning_rate_schedule.LearningRateSchedule):
    """Learning rates by step.

    Args:
        rates: The learning rate of each step; the last one holds for all later steps.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__()
        self._rates = np.asarray(rates, np.float32)
        self.table = Tensor(self._rates)
        self.last = len(rates) - 1

    def construct(self, step: Tensor) -> Tensor:
        """The rate of the update that follows `step` updates: int32, 0 for the first one.

        The optimizer calls this with its `global_step`, of shape (1,); the rate has that shape.
        """
        return ops.gather(self.table, ops.minimum(step, self.last), 0)

    def value(self, step: int) -> float:
        """What `construct` gives for `step`, without touching the device."""
        return float(self._rates[min(step, self.last)])


def cosine(
    learning_rate: float,
    total_steps: int,
    steps_per_epoch: int = 1,
    warmup_steps: int = 0,
    min_lr_ratio: float = 0.0,
) -> Schedule:
    """Half a cosine down to `min_lr_ratio` of the rate (Loshchilov & Hutter 2017, equation 5)."""
    _check_ratio(min_lr_ratio)

    def curve(steps: np.ndarray) -> np.ndarray:
        fall = (1 + np.cos(np.pi * _progress(steps))) / 2
        return min_lr_ratio + (1 - min_lr_ratio) * fall

    return _schedule(learning_rate, total_steps, warmup_steps, curve)


def poly(
    learning_rate: float,
    total_steps: int,
    steps_per_epoch: int = 1,
    warmup_steps: int = 0,
    power: float = 0.9,
    min_lr_ratio: float = 0.0,
) -> Schedule:
    """(1 - step / total_steps) ** power, down to `min_lr_ratio` of the rate (as in DeepLab)."""
    _check_ratio(min_lr_ratio)
    _check_positive("scheduler.power", power, "0.9")

    def curve(steps: np.ndarray) -> np.ndarray:
        fall = (1 - _progress(steps)) ** power
        return min_lr_ratio + (1 - min_lr_ratio) * fall

    return _schedule(learning_rate, total_steps, warmup_steps, curve)


def constant(
    learning_rate: float, total_steps: int, steps_per_epoch: int = 1, warmup_steps: int = 0
) -> Schedule:
    """One rate throughout, after the warm-up."""
    return _schedule(learning_rate, total_steps, warmup_steps, np.ones_like)


def step(
    learning_rate: float,
    total_steps: int,
    steps_per_epoch: int = 1,
    warmup_steps: int = 0,
    milestones: Sequence[float] | None = None,
    gamma: float = 0.1,
) -> Schedule:
    """A rate that is multiplied by `gamma` when each epoch of `milestones` is over.

    Milestones of None stand for 60 % and 80 % of the run.
    """
    _check_positive("scheduler.gamma", gamma, "0.1")
    epochs = total_steps / steps_per_epoch
    milestones = [0.6 * epochs, 0.8 * epochs] if milestones is None else list(milestones)
    if any(m <= 0 for m in milestones) or sorted(set(milestones)) != milestones:
        raise UserError(
            f"scheduler.milestones={milestones}: expected rising epochs above 0, as [30,60]"
        )
    for milestone in milestones:
        if milestone >= epochs:
            log.warning(
                "scheduler.milestones: epoch %g lies beyond the run's %g", milestone, epochs
            )

    def curve(steps: np.ndarray) -> np.ndarray:
        ends = np.round(np.array(milestones) * steps_per_epoch)
        return gamma ** np.searchsorted(ends, steps, side="right")

    return _schedule(learning_rate, total_steps, warmup_steps, curve)


def _schedule(
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    curve: Callable[[np.ndarray], np.ndarray],
) -> Schedule:
    """Warm-up from `learning_rate / warmup_steps`, then `learning_rate` times the curve."""
    _check_positive("optimizer.learning_rate", learning_rate, "0.05")
    if warmup_steps < 0:
        raise UserError(f"scheduler.warmup_steps={warmup_steps}: expected at least 0")
    half = total_steps // 2
    if warmup_steps > half:
        log.info(
            "scheduler.warmup_steps=%d is shortened to %d, half of the run's steps",
            warmup_steps,
            half,
        )
        warmup_steps = half
    warmup = np.arange(1, warmup_steps + 1) / max(warmup_steps, 1)
    after = curve(np.arange(warmup_steps, total_steps + 1, dtype=np.float64))
    return Schedule(learning_rate * np.concatenate([warmup, after]))


def _progress(steps: np.ndarray) -> np.ndarray:
    """0 at the first of the steps, 1 at the last."""
    return (steps - steps[0]) / (steps[-1] - steps[0])


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise UserError(
            f"scheduler.min_lr_ratio={ratio}: expected 0..1, the share of optimizer.learning_rate "
            "that is left at the end, as 0.01"
        )


def _check_positive(key: str, value: float, example: str) -> None:
    if not value > 0:
        raise UserError(f"{key}={value}: expected a number above 0, as {example}")
