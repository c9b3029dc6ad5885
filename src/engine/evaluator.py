"""Evaluation at native resolution: one confusion matrix over a whole split."""

import copy
import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from src.device.process_group import ProcessGroup
from src.engine.segmenter import Segmenter
from src.utils.console import class_table, console, html_table, scores_table
from src.utils.errors import UserError
from src.utils.files import write_json, write_text
from src.utils.map_ahead import map_ahead
from src.utils.palette import voc_palette


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image, over the classes in it; NaN if all its pixels are ignored."""

    name: str
    pixel_acc: float
    miou: float


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the content of `eval.json`, and its confusion matrix."""

    scores: dict[str, float]  # pixel_acc, macc, miou, fwiou, and those of the extra metrics
    per_class: dict[str, dict[str, float]]
    matrix: np.ndarray  # C×C int64, rows targets
    protocol: dict[str, Any]
    images: tuple[ImageScores, ...] = ()  # in the order of the samples

    def as_dict(self) -> dict[str, Any]:
        """The content of `eval.json`."""
        return {**self.scores, "per_class": self.per_class, "protocol": self.protocol}

    def save(self, path: Path) -> None:
        """Writes `eval.json`."""
        write_json(path, self.as_dict())

    def save_images(self, path: Path) -> list[ImageScores]:
        """Writes the scores of each image as CSV; returns them, lowest mIoU first, NaN at the end.

        The file is in the same order.
        """
        ordered = sorted(self.images, key=lambda i: (math.isnan(i.miou), i.miou))
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(ImageScores))
        writer.writerows(
            ["" if isinstance(value, float) and math.isnan(value) else value for value in row]
            for row in map(astuple, ordered)
        )
        write_text(path, text.getvalue())
        return ordered

    def show(self, title: str) -> None:
        """Prints the scores and the per-class table, in percent."""
        console.print(class_table(title, self.per_class))
        console.print(scores_table(title, self.scores))

    def _repr_html_(self) -> str:
        """The same tables, for a notebook."""
        title = f"split {self.protocol['split']}, {self.protocol['images']} images, percent"
        tables = (scores_table(title, self.scores), class_table("by class", self.per_class))
        return "".join(map(html_table, tables))

    def log_metrics(self, split: str) -> dict[str, float]:
        """The scores by log key: `val/miou`, `val/iou/person` …."""
        classes = {f"{split}/iou/{name}": row["iou"] for name, row in self.per_class.items()}
        return {f"{split}/{name}": value for name, value in self.scores.items()} | classes


class Metric(Protocol):
    """Extra scores over a split, derived from counts that are updated image by image.

    Attributes:
        counts: Everything counted since `clear`; the counts of several parts of a split are added.
    """

    counts: np.ndarray

    def clear(self) -> None:
        """Forgets all counts."""

    def update(self, target: np.ndarray, pred: np.ndarray) -> None:
        """Counts an image: H×W uint8 ids of its label and of the prediction."""

    def scores(self) -> dict[str, float]:
        """Fractions by name, logged as `val/<name>`; NaN of one that nothing was counted for."""


class Evaluator:
    """Evaluates the network of a segmenter over samples.

    Several processes share the samples, and each gets the evaluation of the whole split.

    Args:
        segmenter: Predicts class ids.
        samples: With `name`, `image` (H×W×3 uint8 RGB) and `label` (H×W uint8).
        metric: A confusion matrix, see `src.metrics.ConfusionMatrix`.
        class_names: For the per-class table.
        split: Name of the split, for the protocol.
        palette: C×3 uint8 RGB, for pictures; None is VOC's.
        extra_metrics: Metrics whose scores stand beside those of the confusion matrix.
        process_group: The processes that evaluate together; None is one.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        samples: Sequence[Any],
        metric: Any,
        class_names: Sequence[str],
        split: str,
        palette: np.ndarray | None = None,
        extra_metrics: Sequence[Metric] = (),
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.samples = samples
        self.metric = metric
        self.class_names = class_names
        self.split = split
        self.palette = voc_palette(len(class_names)) if palette is None else palette
        self.extra_metrics = list(extra_metrics)
        self.process_group = process_group or ProcessGroup()

    def share(self, count: int) -> range:
        """Indices of the samples that this process evaluates, of the first `count`."""
        return range(self.process_group.rank, count, self.process_group.world_size)

    def names(self) -> list[str]:
        """Names of the scores, without the split: `miou`, `iou/person` …."""
        for metric in (self.metric, *self.extra_metrics):
            metric.clear()
        return [*self._scores(), *(f"iou/{name}" for name in self.class_names)]

    def holds(self, class_name: str, count: int) -> bool:
        """Whether a class has a pixel in the labels of the first `count` samples."""
        class_id = list(self.class_names).index(class_name)
        return any((self.samples[i].label == class_id).any() for i in range(count))

    def run(self, count: int, on_sample: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluates the first `count` samples; `on_sample` is called after each of our own."""
        for metric in (self.metric, *self.extra_metrics):
            metric.clear()
        started = time.perf_counter()
        one, images = copy.copy(self.metric), []
        # Decoded by a thread while the network runs
        for sample in map_ahead(self.samples.__getitem__, self.share(count), workers=1):
            one.clear()
            pred = self.segmenter.predict(sample.image)
            one.update(sample.label, pred)
            for metric in self.extra_metrics:
                metric.update(sample.label, pred)
            self.metric.merge(one.matrix)
            scores = one.scores()
            images.append(ImageScores(sample.name, scores["pixel_acc"], scores["miou"]))
            on_sample()
        images = self._gather(images, count)
        protocol = {
            "split": self.split,
            "images": count,
            **self.segmenter.protocol,
            "ignore_index": self.metric.ignore_index,
            "seconds": round(time.perf_counter() - started, 3),
        }
        return Evaluation(
            self._scores(),
            self.metric.per_class(self.class_names),
            self.metric.matrix.copy(),
            protocol,
            tuple(images),
        )

    def _gather(self, images: list[ImageScores], count: int) -> list[ImageScores]:
        """Sums the counts of all processes; returns the scores of all images, in order."""
        counts = [self.metric.matrix, *(metric.counts for metric in self.extra_metrics)]
        mine = {"counts": [c.tolist() for c in counts], "images": [astuple(i) for i in images]}
        parts = self.process_group.gather(mine)
        sums = [
            np.sum([part["counts"][i] for part in parts], axis=0, dtype=own.dtype)
            for i, own in enumerate(counts)
        ]
        self.metric.clear()
        self.metric.merge(sums[0])
        for metric, total in zip(self.extra_metrics, sums[1:], strict=True):
            metric.counts = total
        size = self.process_group.world_size
        return [ImageScores(*parts[i % size]["images"][i // size]) for i in range(count)]

    def _scores(self) -> dict[str, float]:
        scores = self.metric.scores()
        for metric in self.extra_metrics:
            for name, value in metric.scores().items():
                if name in scores:
                    raise UserError(
                        f"{type(metric).__name__}: gives a score {name}, which another metric "
                        "gives already; rename one"
                    )
                scores[name] = value
        return scores
