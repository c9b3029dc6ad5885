"""Validation during training, best checkpoints and early stopping."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms

from src.engine.callbacks.base import Callback
from src.engine.evaluator import Evaluation
from src.utils.errors import UserError, nearest

log = logging.getLogger(__name__)


class Validate(Callback):
    """Evaluates the validation split at native resolution after every n-th epoch and the last.

    Puts the evaluation into the trainer's state for the callbacks registered after it, logs its
    scores as `val/miou` and so on; stock callbacks find them in `cb_params.eval_results`. With
    `trainer.ema_decay` the averaged weights are evaluated too: `val/ema/miou` and so on.
    """

    def on_train_begin(self, run_context: ms.train.RunContext) -> None:
        trainer = self.trainer
        if trainer.evaluator is None:
            return
        prefixes = ["val"] if trainer.ema_decay is None else ["val", "val/ema"]
        keys = [f"{prefix}/{name}" for prefix in prefixes for name in trainer.evaluator.names()]
        if trainer.monitor not in keys:
            raise UserError(
                f"trainer.monitor={trainer.monitor}: not among the validation's values "
                f"({', '.join(key for key in keys if '/iou/' not in key)}, val/iou/<class>)"
                + nearest(trainer.monitor, keys)
            )
        name = trainer.monitor.partition("/iou/")[2]
        if name and not trainer.evaluator.holds(name, trainer.val_count):
            raise UserError(
                f"trainer.monitor={trainer.monitor}: none of the {trainer.val_count} samples that "
                f"are validated has a pixel of '{name}', so that none of the weights would be the "
                "best; monitor val/miou, or validate on samples that show it"
            )

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        last = state.epoch == trainer.max_epochs
        if trainer.evaluator is None or (state.epoch % trainer.val_every_n_epochs and not last):
            return
        state.evaluation = trainer.evaluate(trainer.evaluator)
        state.metrics = state.evaluation.log_metrics("val")
        if trainer.train_step.ema is not None:
            averaged = self._evaluate_average()
            state.metrics |= averaged.log_metrics("val/ema")
            if trainer.monitors_ema:
                state.evaluation = averaged
        trainer.log(state.metrics)
        run_context.original_args().eval_results = dict(state.metrics)

    def _evaluate_average(self) -> Evaluation:
        with self.trainer.train_step.ema.in_place():
            evaluation = self.trainer.evaluate(self.trainer.evaluator)
        weights = f"averaged, trainer.ema_decay={self.trainer.ema_decay}"
        return replace(evaluation, protocol={**evaluation.protocol, "weights": weights})


class BestCheckpoint(Callback):
    """Keeps the weights of the best validation as `best.ckpt` and its scores as `eval.json`.

    Register after `Validate`, which produces the monitored value.
    """

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        value = trainer.new_value()
        if value is not None and trainer.is_better(value, state.best.get(trainer.monitor)):
            trainer.save_weights("best")
            state.best = {"epoch": state.epoch, "step": state.step, **state.metrics}
            state.best_evaluation = state.evaluation
            if trainer.process_group.is_main_process:
                state.evaluation.save(trainer.output_dir / "eval.json")


class TopKCheckpoints(Callback):
    """Keeps the weights of the `trainer.keep_top_k` best validations as `epoch_012.ckpt` ….

    Register after `Validate`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[float, Path]] = []

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        trainer = self.trainer
        value = trainer.new_value()
        if value is None or not math.isfinite(value) or not trainer.keep_top_k:
            return
        full = len(self.kept) == trainer.keep_top_k
        if full and not trainer.is_better(value, self.kept[-1][0]):
            return
        self.kept.append((value, trainer.save_weights(f"epoch_{trainer.state.epoch:03d}")))
        self.kept.sort(key=lambda item: item[0], reverse=trainer.monitor_mode == "max")
        for _, path in (
            self.kept[trainer.keep_top_k :] if trainer.process_group.is_main_process else ()
        ):
            path.unlink(missing_ok=True)
        del self.kept[trainer.keep_top_k :]

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [[value, path.name] for value, path in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept = [
            (value, self.trainer.checkpoint_dir / name) for value, name in state.get("kept", [])
        ]
        # One may have given way to a better one that the resumed run is yet to find again
        self.kept = [(value, path) for value, path in kept if path.exists()]


class EarlyStopping(Callback):
    """Stops when the monitored value has not improved for `patience` validations.

    Register after `Validate`.

    Args:
        patience: Validations without improvement that are borne.
        min_delta: Smaller gains do not count as improvement.
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        super().__init__()
        if patience < 1:
            raise UserError(f"early stopping with patience={patience}: expected at least 1")
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        value = trainer.new_value()
        if value is None:
            return
        handicap = -self.min_delta if trainer.monitor_mode == "max" else self.min_delta
        if trainer.is_better(value + handicap, self.best):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        self._judge()
        if state.stop_reason is not None:
            log.info("stopping early after epoch %d: %s", state.epoch, state.stop_reason)
            run_context.request_stop()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state.get("best"), state.get("waited", 0)
        self._judge()

    def _judge(self) -> None:
        if self.waited >= self.patience:
            self.trainer.state.stop_reason = (
                f"{self.trainer.monitor} has not improved on {self.best} "
                f"for {self.waited} validations"
            )
