"""The state of a fit, which callbacks read and a resumed run starts from."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from src.engine.evaluator import Evaluation, ImageScores
from src.utils.errors import UserError

_SAVED = (
    "epoch", "step", "epochs_ended", "loss", "loss_step", "skipped_steps", "metrics", "best",
)  # fmt: skip


@dataclass
class FitState:
    """The state of a fit. The trainer keeps it, callbacks read it."""

    steps_per_epoch: int = 0
    batch_size: int = 0  # images a step
    epoch: int = 0  # from 1
    step: int = 0  # steps since the start, from 1
    epochs_ended: int = 0  # epochs whose validation is done, too
    loss: float = math.nan  # of step `loss_step`, the newest whose loss was read
    loss_step: int = 0
    mean_loss: float = math.nan  # over the updates between the last two steps that were logged
    loss_scale: float | None = None  # after step `loss_step`; None without a loss scaler
    skipped_steps: int = 0  # up to `loss_step`: the loss scaler left out their updates
    skipped_in_a_row: int = 0  # the last of them, up to `loss_step`
    evaluation: Evaluation | None = None  # this epoch's validation, if there was one
    metrics: dict[str, float] = field(default_factory=dict)  # newest validation, `val/miou` …
    best: dict[str, float] = field(default_factory=dict)  # {"epoch", "step", "val/miou" …}
    best_evaluation: Evaluation | None = None
    stop_reason: str | None = None

    def summary(self) -> dict[str, Any]:
        """Best and newest scores, for `summary.json`; nothing before the first step."""
        if not self.step:
            return {}
        return {
            "best": self.best or None,
            "last": {"epoch": self.epoch, "step": self.step, **self.metrics},
        }

    def state_dict(self) -> dict[str, Any]:
        """The JSON-serialisable state that a resumed fit needs."""
        saved = {name: getattr(self, name) for name in _SAVED}
        saved["epoch_size"] = [self.steps_per_epoch, self.batch_size]
        if (best := self.best_evaluation) is not None:
            images = [vars(image) for image in best.images]
            saved["best_evaluation"] = vars(best) | {
                "matrix": best.matrix.tolist(),
                "images": images,
            }
        return saved

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restores a `state_dict`.

        Raises:
            UserError: An epoch had other steps, so that the position means nothing here.
        """
        if saved["epoch_size"] != [self.steps_per_epoch, self.batch_size]:
            was, images = saved["epoch_size"]
            raise UserError(
                f"resume: the run has {was} steps of {images} images an epoch, its data and config "
                f"now give {self.steps_per_epoch} of {self.batch_size}; leave dataset.*, "
                "trainer.accumulate and trainer.limit_train_batches as they were, or start a new "
                "run with model.weights=RUN/checkpoints/last.ckpt"
            )
        for name in _SAVED:
            setattr(self, name, saved[name])
        if best := saved.get("best_evaluation"):
            self.best_evaluation = Evaluation(
                **best
                | {
                    "matrix": np.array(best["matrix"], np.int64),
                    "images": tuple(ImageScores(**image) for image in best["images"]),
                }
            )
