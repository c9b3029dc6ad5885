"""LabelMe: a JSON file of shapes for every image."""

import base64
import binascii
import io
import json
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from src.data.preparation.problem import Problem, read_bytes
from src.data.sources.annotations import VOID, AnnotationSource, LabelIds
from src.data.sources.file_lists import IMAGE_SUFFIXES, Files, Labels, few, read_lines
from src.utils.errors import UserError

log = logging.getLogger(__name__)

_IGNORE = "__ignore__"  # void in LabelMe's own converters
_LINE_WIDTH, _POINT_RADIUS = 10, 5  # pixels, LabelMe's own
_POINTS = {  # by kind of shape, at least and at most
    "polygon": (3, math.inf),
    "oriented_rectangle": (4, 4),
    "rectangle": (2, 2),
    "circle": (2, 2),
    "line": (2, 2),
    "linestrip": (2, math.inf),
    "point": (1, 1),
    "mask": (2, 2),
}


class LabelmeSource(AnnotationSource):
    """A folder of images and LabelMe's JSON files, paired by file name without the extension.

    Images lie in the root, in `images`, `JPEGImages` or a folder `<split>`, annotations beside them
    or in `annotations`. Splits are those of `FolderSource`. An image without a JSON file is not
    annotated yet and left out, unless a list names it; one whose file has no shapes is background.

    `classes.txt` names the classes, or LabelMe's own `labels.txt`, of which `__ignore__` is void.
    """

    def _names_in_files(self) -> tuple[str, ...] | None:
        for name in ("classes.txt", "labels.txt"):
            if (self.folder / name).is_file():
                return tuple(n for n in read_lines(self.folder / name) if n != _IGNORE)
        return None

    def _images(self, split: str) -> tuple[Files, bool]:
        usual = ("images", "JPEGImages", split, ".")
        images, whole = self._files("image_dir", usual, IMAGE_SUFFIXES, split)
        if split in self._lists(images, split):
            return images, whole
        labels = self._labels(split)
        without = images.keys() - labels.keys()
        if len(without) == len(images):
            raise UserError(
                f"{self.folder}: no JSON file bears the name of an image ({few(images)}); name "
                "their folder by dataset.source.label_dir"
            )
        if without:
            log.warning("%s: left out, without a JSON file: %s", self.folder, few(without))
        return {name: files for name, files in images.items() if name in labels}, whole

    def _labels(self, split: str) -> Labels:
        usual = ("annotations", "images", "JPEGImages", split, ".")
        files = self._files("label_dir", usual, (".json",), split)[0]
        ids = self._label_ids(_labels_in(path for paths in files.values() for path in paths))
        return {n: [LabelmeAnnotation(path, ids) for path in paths] for n, paths in files.items()}


@dataclass(frozen=True)
class LabelmeAnnotation:
    """The shapes of an image in LabelMe's format, later ones over earlier ones.

    What a shape covers is defined by LabelMe's converters (`shapes_to_label` of version 7): the
    interior with its outline; a disc about the first point of a circle through the second; lines
    10 pixels wide; discs of radius 5 for points; masks as stored. Shapes of one group are one
    object, which makes no difference to its class.
    """

    path: Path
    ids: LabelIds

    def __fspath__(self) -> str:
        return str(self.path)

    def read_bytes(self) -> bytes:
        """See `Annotation.read_bytes`."""
        return self.path.read_bytes() + repr(self.ids).encode()

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """See `Annotation.draw`."""
        content = _read(self.path)
        self._check_image(content.get("imagePath"))
        stated: tuple[Any, Any] = content.get("imageHeight"), content.get("imageWidth")
        drawn = np.full(stated if all(stated) else size, self.ids.unlabeled, np.uint8)
        for i, shape in enumerate(content["shapes"], 1):
            try:
                label = shape["label"]
                number = VOID if label == _IGNORE else self.ids.number(label, self.path)
                if number is not None:
                    drawn[_region(shape, drawn.shape)] = number
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                raise Problem(
                    "unreadable annotation", self.path, f"shape {i}: {error}; correct it in LabelMe"
                ) from error
        return drawn

    def _check_image(self, name: Any) -> None:
        """A renamed image is paired by its name; one that another image is named in is not."""
        named = self.path.parent / PureWindowsPath(str(name)).as_posix()
        if named.stem != self.path.stem and named.is_file():
            raise Problem(
                "unclear image",
                self.path,
                f"its imagePath is {name}, which is there; give both the same name, or correct "
                "imagePath",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
        if not all(isinstance(shape, dict) for shape in content["shapes"]):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(
            "unreadable annotation", path, "expected LabelMe's JSON with its list 'shapes'"
        ) from error
    return content


def _labels_in(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            found = {str(shape.get("label")) for shape in _read(path)["shapes"]}
        except Problem as problem:
            raise UserError(str(problem)) from problem
        yield from found - {_IGNORE}


def _region(shape: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
    """The pixels of a shape, H×W bool."""
    kind, points = shape.get("shape_type") or "polygon", np.array(shape["points"], float)
    if kind not in _POINTS:
        raise ValueError(f"shape_type '{kind}', expected one of {', '.join(_POINTS)}")
    if points.shape[1:] != (2,) or not np.isfinite(points).all():
        raise ValueError("points that are no pairs of numbers")
    low, high = _POINTS[kind]
    if not low <= len(points) <= high:
        raise ValueError(f"a {kind} of {len(points)} points, expected {low}")
    if kind == "mask":
        return _stored_mask(shape["mask"], points, size)
    image = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(image)
    xy = [tuple(point) for point in points.tolist()]
    if kind in ("polygon", "oriented_rectangle"):
        draw.polygon(xy, fill=1, outline=1)
    elif kind == "rectangle":
        draw.rectangle(np.sort(points, axis=0).ravel().tolist(), fill=1, outline=1)
    elif kind in ("line", "linestrip"):
        draw.line(xy, fill=1, width=_LINE_WIDTH, joint="curve" if kind == "linestrip" else None)
    else:
        radius = _POINT_RADIUS if kind == "point" else math.dist(*xy)
        box = np.array([points[0] - radius, points[0] + radius])
        draw.ellipse(box.ravel().tolist(), fill=1, outline=1)
    return np.array(image, bool)


def _stored_mask(encoded: str, points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A mask that is stored as a PNG of its bounding box, the corners included."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            patch = np.array(image) > 0
    except (binascii.Error, OSError, SyntaxError) as error:
        raise ValueError("a mask that is no PNG") from error
    (left, top), (right, bottom) = points.round().astype(int).tolist()
    height, width = bottom - top + 1, right - left + 1
    if patch.ndim != 2 or max(abs(patch.shape[0] - height), abs(patch.shape[1] - width)) > 1:
        raise ValueError(f"a mask of {patch.shape[::-1]} pixels for the corners {points.tolist()}")
    if (points == points.round()).all():  # else rounding may have moved the corners
        patch = patch[:height, :width]
    region = np.zeros(size, bool)
    rows = slice(max(top, 0), max(top + patch.shape[0], 0))
    columns = slice(max(left, 0), max(left + patch.shape[1], 0))
    target = region[rows, columns]
    target[:] = patch[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
    return region
