"""The figures of a run, drawn once at its end, and those of an evaluation."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from src.engine.callbacks.base import Callback
from src.engine.ema import swapped_parameters
from src.engine.evaluator import Evaluation, Evaluator
from src.runs.names import run_name
from src.utils.curves import read_curves
from src.utils.errors import error_summary
from src.visualization.charts import draw_class_iou, draw_confusion, draw_curves, in_percent
from src.visualization.sheets import Case, Classes, draw_cases

log = logging.getLogger(__name__)


class Figures(Callback):
    """Writes `figures/` when training ends, with the best weights, and hands them to the loggers.

    Register last. Of the validation images a handful is predicted again; a figure that cannot
    be drawn is a warning, never the end of a run.

    Args:
        samples: Images on the sheet of predictions, spread evenly over the validation split.
        extremes: Images on each of the sheets of best and worst cases, by their own mIoU.
    """

    def __init__(self, samples: int = 6, extremes: int = 4) -> None:
        super().__init__()
        self.samples = samples
        self.extremes = extremes

    def on_train_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        if not trainer.process_group.is_main_process:
            return
        directory = trainer.output_dir / "figures"
        metrics = trainer.output_dir / "metrics.csv"
        name, best_epoch = run_name(trainer.output_dir), state.best.get("epoch")
        written = Written()
        if metrics.exists():
            subtitle = f"{name} · {state.epoch} epochs"
            if state.best:
                key = trainer.monitor
                subtitle += f" · best {key} {in_percent(state.best[key])} in epoch {best_epoch}"
            with written.tried(directory / "curves.png") as path:
                draw_curves(path, read_curves(metrics), subtitle, best_epoch)
        evaluation = state.best_evaluation or state.evaluation
        if evaluation is not None and trainer.evaluator is not None:
            best = state.best_evaluation is not None
            title = f"{name} · epoch {best_epoch if best else state.epoch}"
            path = trainer.checkpoint_dir / "best.ckpt"
            stale = best and best_epoch != state.epoch and path.exists()
            with (
                written.tried(directory),
                trainer.monitored_weights(),
                weights_of(trainer.train_step.network, path if stale else None),
            ):
                evaluation_figures(
                    trainer.evaluator, evaluation, directory, title,
                    self.samples, self.extremes, written,
                )  # fmt: skip
        self._log(written, evaluation)
        if written.paths:
            log.info("figures → %s", directory)

    def _log(self, written: "Written", evaluation: Evaluation | None) -> None:
        for logger in self.trainer.loggers:
            with written.tried(None):
                logger.log_images(written.paths)
                if evaluation is not None and evaluation.per_class:
                    columns = ["class", *next(iter(evaluation.per_class.values()))]
                    rows = [[name, *row.values()] for name, row in evaluation.per_class.items()]
                    logger.log_table("per_class", columns, rows)
                if written.cases:
                    classes = _classes(self.trainer.evaluator)
                    logger.log_masks("predictions", written.cases, classes)


class Written:
    """The figures that were drawn, and the images of the sheet of predictions."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.cases: list[Case] = []

    @contextmanager
    def tried(self, path: Path | None) -> Iterator[Path | None]:
        """Draws one figure inside; an error becomes a warning."""
        try:
            yield path
        except Exception as error:  # whatever it is, the run is worth more
            reason = error_summary(error) or type(error).__name__
            log.warning("%s: not drawn or not logged (%s)", path or "figures", reason)
            log.debug("a figure failed", exc_info=True)
        else:
            if path is not None and path.suffix:
                self.paths.append(path)


def evaluation_figures(
    evaluator: Evaluator,
    evaluation: Evaluation,
    directory: Path,
    title: str,
    samples: int = 6,
    extremes: int = 4,
    written: Written | None = None,
) -> None:
    """Draws IoU by class, confusion matrix, and sheets of predictions, best and worst cases.

    Args:
        evaluator: Its segmenter predicts the images of the sheets again.
        evaluation: What the evaluator found, with the same weights.
        directory: Where the PNGs go.
        title: Of which weights: the run, the epoch.
        samples, extremes: See `Figures`.
        written: Called with what was drawn.
    """
    written = written or Written()
    classes = _classes(evaluator)
    names, palette = classes.names, classes.palette
    title += f" · {evaluator.split} · mIoU {in_percent(evaluation.scores['miou'])}"
    with written.tried(directory / "class_iou.png") as path:
        iou = {name: row["iou"] for name, row in evaluation.per_class.items()}
        draw_class_iou(path, iou, palette, title)
    with written.tried(directory / "confusion_matrix.png") as path:
        draw_confusion(path, evaluation.matrix, names, title)
    worst, best = extreme_images([scores.miou for scores in evaluation.images], extremes)
    sheets = {
        "predictions": ("Predictions", spread(len(evaluation.images), samples)),
        "worst": ("Worst cases", worst),
        "best": ("Best cases", best),
    }
    cases: dict[int, Case] = {}
    for name, (heading, indices) in sheets.items():
        if not indices:
            continue
        with written.tried(directory / f"{name}.png") as path:
            for index in indices:
                if index not in cases:
                    cases[index] = _case(evaluator, evaluation, index)
            shown = [cases[index] for index in indices]
            draw_cases(path, shown, classes, heading, title)
            if name == "predictions":
                written.cases = shown


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def extreme_images(values: Sequence[float], wanted: int) -> tuple[list[int], list[int]]:
    """Indices of the lowest values, lowest first, and of the highest, highest first.

    No index is in both; NaN is in neither.
    """
    order = sorted((i for i, v in enumerate(values) if not math.isnan(v)), key=values.__getitem__)
    wanted = min(wanted, len(order) // 2)
    return order[:wanted], order[::-1][:wanted]


def weights_of(network: nn.Cell, path: Path | None) -> AbstractContextManager[None]:
    """Swaps the weights of a checkpoint into the network temporarily; None leaves it as it is."""
    if path is None:
        return nullcontext()
    stored = ms.load_checkpoint(str(path))  # without what serves training alone
    parameters = network.parameters_dict()
    return swapped_parameters([parameters[name] for name in stored], list(stored.values()))


def _classes(evaluator: Evaluator) -> Classes:
    return Classes(evaluator.class_names, evaluator.palette, evaluator.metric.ignore_index)


def _case(evaluator: Evaluator, evaluation: Evaluation, index: int) -> Case:
    sample, scores = evaluator.samples[index], evaluation.images[index]
    caption = f"mIoU {in_percent(scores.miou)} · pixel acc. {in_percent(scores.pixel_acc)}"
    pred = evaluator.segmenter.predict(sample.image)
    return Case(sample.name, sample.image, sample.label, pred, caption)
