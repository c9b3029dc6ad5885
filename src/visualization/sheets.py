"""Contact sheets of images with their class ids, pixel for pixel, written as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from src.utils.palette import full_palette
from src.visualization.charts import FAINT, font_families, save_figure
from src.visualization.overlays import colorize, overlay

WRONG = (214, 39, 40)
_DPI = 100
_MARGIN, _GAP = 24, 10
_LEGEND_LIMIT = 40  # with more classes, only those that occur are listed
Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One image with what should be seen in it and what the network sees."""

    name: str
    image: np.ndarray  # H×W×3 uint8 RGB
    label: np.ndarray  # H×W uint8
    pred: np.ndarray  # H×W uint8
    caption: str  # its scores


@dataclass(frozen=True)
class Crop:
    """One training crop."""

    name: str
    image: np.ndarray  # h×w×3 uint8 RGB, not normalised
    label: np.ndarray  # h×w uint8
    padding: Sequence[tuple[slice, slice]]  # regions that no image pixel fills


@dataclass(frozen=True)
class Classes:
    """The names and colours of class ids."""

    names: Sequence[str]
    palette: np.ndarray  # C×3 uint8 RGB
    ignore_index: int = 255


class Sheet:
    """A white page on which arrays keep their pixels and text is set beside them.

    Args:
        width, height: In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self._texts: list[tuple[float, float, str, dict]] = []

    def paste(self, array: np.ndarray, left: int, top: int) -> None:
        """Puts an H×W×3 uint8 RGB array on the page, in a hairline frame."""
        height, width = array.shape[:2]
        self.pixels[top - 1 : top + height + 1, left - 1 : left + width + 1] = 180
        self.pixels[top : top + height, left : left + width] = array

    def text(self, text: str, left: float, top: float, size: float = 9, **style: str) -> None:
        """Sets a line whose capitals begin there; `size` in points of 100 dpi."""
        baseline = top + 1.05 * size
        self._texts.append((left, baseline, text, {"fontsize": size, **style}))

    def save(self, path: Path) -> None:
        """Writes the PNG."""
        import matplotlib
        from matplotlib.figure import Figure

        height, width = self.pixels.shape[:2]
        with matplotlib.rc_context({"font.family": font_families()}):
            fig = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
            fig.figimage(self.pixels)
            for left, top, text, style in self._texts:
                fig.text(left / width, 1 - top / height, text, parse_math=False, **style)
            # photographs hardly shrink further, and take long to try
            save_figure(fig, path, pil_kwargs={"compress_level": 2})


def draw_cases(
    path: Path, cases: Sequence[Case], classes: Classes, heading: str, subtitle: str
) -> None:
    """A row an image: image, label, prediction, errors; a legend of the classes below.

    In the error map wrong pixels are red over the faded image, ignored ones white.

    Args:
        path: The PNG.
        cases: At least one.
        classes: Their names and colours.
        heading, subtitle: The two lines above.
    """
    box = (240, 300)
    tiles = [_tiles(case, classes, box) for case in cases]
    widest = max(tile.shape[1] for row in tiles for tile in row)
    lines = [max(tile.shape[0] for tile in row) + 34 for row in tiles]
    width = max(2 * _MARGIN + 4 * widest + 3 * _GAP, 760)
    ids = {int(i) for case in cases for i in np.union1d(case.label, case.pred)}
    entries = [*legend_entries(classes, ids), ("wrong", WRONG)]
    legend_height = _legend_height(len(entries), width)
    sheet = _titled(width, 96 + sum(lines) + legend_height, heading, subtitle)
    for column, name in enumerate(("image", "label", "prediction", "errors")):
        left = _MARGIN + column * (widest + _GAP)
        sheet.text(name, left, 72, color=FAINT)
    top = 96
    for case, row, height in zip(cases, tiles, lines, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, _MARGIN + column * (widest + _GAP), top)
        sheet.text(f"{case.name}   {case.caption}", _MARGIN, top + height - 29, 8.5)
        top += height
    _legend(sheet, entries, top)
    sheet.save(path)


def draw_crops(
    path: Path, crops: Sequence[Crop], classes: Classes, heading: str, subtitle: str
) -> None:
    """Training crops in pairs, as the network gets them and under their label's colours.

    Padding is striped, ignored pixels are dotted.

    Args:
        path: The PNG.
        crops: At least one.
        classes: Their names and colours.
        heading, subtitle: The two lines above.
    """
    box = (190, 190)
    pairs = [_pair(crop, classes, box) for crop in crops]
    widest = max(tile.shape[1] for pair in pairs for tile in pair)
    tallest = max(tile.shape[0] for pair in pairs for tile in pair)
    across = min(len(pairs), 4)
    step_x, step_y = 2 * widest + 2 + 2 * _GAP, tallest + 34
    width = max(2 * _MARGIN + across * step_x - 2 * _GAP, 560)
    ids = {int(i) for crop in crops for i in np.unique(crop.label)}
    entries = legend_entries(classes, ids)
    if classes.ignore_index in ids:
        entries[-1] = ("ignored, dotted", entries[-1][1])
    down = -(-len(pairs) // across)
    height = 80 + down * step_y + _legend_height(len(entries), width)
    sheet = _titled(width, height, heading, subtitle)
    for index, (crop, (image, labelled)) in enumerate(zip(crops, pairs, strict=True)):
        left = _MARGIN + index % across * step_x
        top = 80 + index // across * step_y
        sheet.paste(image, left, top)
        sheet.paste(labelled, left + image.shape[1] + 2, top)
        sheet.text(crop.name, left, top + image.shape[0] + 7, 8.5)
    _legend(sheet, entries, 80 + down * step_y)
    sheet.save(path)


def error_map(case: Case, ignore_index: int) -> np.ndarray:
    """H×W×3 uint8 RGB: wrong pixels red over the faded grey image, ignored ones white."""
    grey = cv2.cvtColor(case.image, cv2.COLOR_RGB2GRAY)
    errors = np.repeat((150 + grey * 0.35).astype(np.uint8)[..., None], 3, axis=2)
    errors[case.label != case.pred] = WRONG
    errors[case.label == ignore_index] = 255
    return errors


def legend_entries(classes: Classes, ids: set[int]) -> list[tuple[str, tuple[int, int, int]]]:
    """Name and colour of the classes, or of those among `ids` if there are many; and of void."""
    palette = full_palette(classes.palette)
    listed = [
        i
        for i in range(len(classes.names))
        if i != classes.ignore_index and (i in ids or len(classes.names) <= _LEGEND_LIMIT)
    ]
    named = [(classes.names[i], i) for i in listed]
    if classes.ignore_index in ids:
        named.append(("ignored", classes.ignore_index))
    return [(name, tuple(palette[i].tolist())) for name, i in named]


def _tiles(case: Case, classes: Classes, box: Size) -> list[np.ndarray]:
    size = _fitted(case.label.shape, box)
    maps = [colorize(case.label, classes.palette), colorize(case.pred, classes.palette)]
    maps.append(error_map(case, classes.ignore_index))
    return [_scaled(case.image, size, smooth=True), *[_scaled(m, size) for m in maps]]


def _pair(crop: Crop, classes: Classes, box: Size) -> tuple[np.ndarray, np.ndarray]:
    size = _fitted(crop.label.shape, box)
    padding = np.zeros(crop.label.shape, np.uint8)
    for region in crop.padding:
        padding[region] = 1
    padding = _scaled(padding, size).astype(bool)
    label = _scaled(crop.label, size)
    image = _scaled(crop.image, size, smooth=True)
    labelled = overlay(image, label, classes.palette)
    y, x = np.indices(size)
    void = full_palette(classes.palette)[classes.ignore_index]
    labelled[(label == classes.ignore_index) & ((x // 2 + y // 2) % 2 == 0)] = void
    stripes = np.where((x + y) // 5 % 2, 235, 205).astype(np.uint8)
    for tile in (image, labelled):
        tile[padding] = stripes[padding][:, None]
    return image, labelled


def _fitted(shape: tuple[int, ...], box: Size) -> Size:
    scale = min(box[0] / shape[0], box[1] / shape[1])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _scaled(array: np.ndarray, size: Size, smooth: bool = False) -> np.ndarray:
    method = cv2.INTER_NEAREST_EXACT
    if smooth:
        method = cv2.INTER_AREA if size[0] < array.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(array, size[::-1], interpolation=method)


def _titled(width: int, height: int, heading: str, subtitle: str) -> Sheet:
    sheet = Sheet(width, height)
    sheet.text(heading, _MARGIN, 14, 14, weight="bold")
    sheet.text(subtitle, _MARGIN, 42, 10, color=FAINT)
    return sheet


_ENTRY = (134, 24)  # width and height of an entry of the legend


def _legend_height(count: int, width: int) -> int:
    across = (width - 2 * _MARGIN) // _ENTRY[0]
    return -(-count // across) * _ENTRY[1] + 22


def _legend(sheet: Sheet, entries: Sequence[tuple[str, tuple[int, int, int]]], top: int) -> None:
    across = (sheet.pixels.shape[1] - 2 * _MARGIN) // _ENTRY[0]
    for index, (name, color) in enumerate(entries):
        left = _MARGIN + index % across * _ENTRY[0]
        line = top + 8 + index // across * _ENTRY[1]
        sheet.paste(np.full((14, 14, 3), color, np.uint8), left, line)
        sheet.text(name if len(name) <= 16 else name[:15] + "…", left + 21, line + 2)
