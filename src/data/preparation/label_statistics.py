"""Statistics of a split: counts, image sizes, the histogram of its labels."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from src.data.preparation.checks import ValidatedSample
from src.data.preparation.labels import Color, LabelRules
from src.data.sources.file_lists import few


class LabelStatistics:
    """Counts over the samples of a split, gathered one by one."""

    def __init__(self, split: str, rules: LabelRules) -> None:
        self._split = split
        self._rules = rules
        self._sizes: list[tuple[int, int]] = []
        self._pixels = np.zeros(256, np.int64)
        self._images = np.zeros(256, np.int64)
        self._image_pixels = np.zeros(256, np.int64)
        self._names: Counter[str] = Counter()
        self._void: list[str] = []
        self._rotated: list[str] = []
        self._numbers: dict[Color, tuple[int, str]] = {}
        self.conflict = ""  # of palettes, with the repair

    def add(self, sample: ValidatedSample) -> None:
        """Counts a sample."""
        self._sizes.append(sample.size)
        self._pixels += sample.counts
        self._images += sample.counts > 0
        self._image_pixels[sample.counts > 0] += self._valid(sample.counts).sum()
        self._names[sample.name] += 1
        if self._valid(sample.counts).sum() == 0:
            self._void.append(sample.name)
        if sample.rotated:
            self._rotated.append(sample.name)
        self._compare_palettes(sample)

    def _compare_palettes(self, sample: ValidatedSample) -> None:
        """A colour that has different numbers in two files may stand for one class."""
        often = Counter(sample.colors.values())
        for number, color in sample.colors.items():
            first, name = self._numbers.setdefault(color, (number, sample.name))
            if first != number and often[color] == 1 and not self.conflict:
                ids = self._rules.key("ids", range(self._rules.num_classes))
                self.conflict = (
                    f"the palettes of label files differ: the colour {color} has the number "
                    f"{first} in {name} and {number} in {sample.name}; if colours tell the "
                    "classes, give them, then those of void, by dataset.source.palette, if "
                    f"numbers do, set {ids}"
                )

    @property
    def valid_pixels(self) -> int:
        """Pixels that belong to a class."""
        return int(self._valid(self._pixels).sum())

    def _valid(self, counts: np.ndarray) -> np.ndarray:
        classes = counts[: self._rules.num_classes].copy()
        if 0 <= self._rules.ignore_index < self._rules.num_classes:
            classes[self._rules.ignore_index] = 0
        return classes

    def report(self) -> dict[str, Any]:
        """The split in plain values.

        `count` images; `height` and `width` with `min`, `median`, `max` in pixels, and
        `distinct_sizes`; `classes`, by id: `pixels`, their `share` of all valid pixels, `images`,
        the number of images that hold the class, and `image_pixels`, the valid pixels of those;
        `ignored_pixels` and `ignored_share` of all pixels; `warnings`, sentences.
        """
        pixels = self._valid(self._pixels)
        total, valid = int(self._pixels.sum()), self.valid_pixels
        sizes = np.array(self._sizes)
        return {
            "split": self._split,
            "count": len(sizes),
            **{
                name: {
                    "min": int(column.min()),
                    "median": float(np.median(column)),
                    "max": int(column.max()),
                }
                for name, column in zip(("height", "width"), sizes.T, strict=True)
            },
            "distinct_sizes": len(set(self._sizes)),
            "classes": [
                {
                    "pixels": int(pixels[i]),
                    "share": float(pixels[i] / max(valid, 1)),
                    "images": int(self._images[i]) if pixels[i] else 0,
                    "image_pixels": int(self._image_pixels[i]) if pixels[i] else 0,
                }
                for i in range(self._rules.num_classes)
            ],
            "ignored_pixels": total - valid,
            "ignored_share": (total - valid) / total,
            "warnings": self._warnings(pixels),
        }

    def _warnings(self, pixels: np.ndarray) -> list[str]:
        found = {
            "labels without a valid pixel": self._void,
            "images that EXIF would turn, taken as stored": self._rotated,
            "names that come more than once": [n for n, count in self._names.items() if count > 1],
        }
        warnings = [f"{what}: {few(names)}" for what, names in found.items() if names]
        absent = [i for i in np.flatnonzero(pixels == 0).tolist() if i != self._rules.ignore_index]
        if absent:
            warnings.append(f"classes without a pixel: {', '.join(map(str, absent))}")
        if absent == [0] and self._rules.ids is None:
            key = self._rules.key("ids", range(1, self._rules.num_classes + 1))
            warnings.append(f"if ids start at 1, set {key}")
        return warnings


def report_table(report: dict[str, Any], class_names: Sequence[str]) -> Table:
    """A table of the classes of a split, its sizes above it and the warnings below."""
    spans = []
    for side in ("height", "width"):
        low, median, high = (report[side][key] for key in ("min", "median", "max"))
        spans.append(f"{side} {low}" + (f" to {high} (median {median:g})" if low < high else ""))
    title = [
        f"{report['split']}: {report['count']} images, {report['ignored_share']:.1%} of the pixels "
        "ignored",
        f"{', '.join(spans)}; distinct sizes: {report['distinct_sizes']}",
    ]
    table = Table(
        title=Text("\n".join(title)), caption=Text("\n".join(report["warnings"]), style="yellow")
    )
    for name in ("id", "class", "pixels", "share", "images"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for i, (name, row) in enumerate(zip(class_names, report["classes"], strict=True)):
        table.add_row(
            str(i), Text(name), f"{row['pixels']:,}", f"{row['share']:.2%}", f"{row['images']:,}"
        )
    return table
