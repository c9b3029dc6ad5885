"""Counts of pixels by class, and the segmentation scores derived from them. NumPy only."""

import math
from collections.abc import Sequence

import numpy as np

from src.utils.errors import UserError


class ConfusionMatrix:
    """Counts pixels by (target class, predicted class) over as many images as are given.

    Scores are derived from the counts at the end (`scores`, `per_class`), never averaged over
    images, batches or ranks: the matrices of parts are added with `merge`.

    Args:
        num_classes: C; predictions lie in 0..C-1.
        ignore_index: Target id of the pixels that are not counted; may be negative, or one of
            0..C-1.

    Attributes:
        matrix: C×C int64, rows are targets, columns predictions.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise UserError(f"num_classes={num_classes}: expected at least 1")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.clear()

    def clear(self) -> None:
        """Forgets all counts."""
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def merge(self, matrix: np.ndarray) -> None:
        """Adds the C×C counts of another part of the data, such as those of another rank."""
        if matrix.shape != self.matrix.shape:
            raise UserError(
                f"a confusion matrix of shape {matrix.shape} cannot be added to one of "
                f"{self.matrix.shape}; count all parts with the same num_classes"
            )
        self.matrix += matrix

    def scores(self) -> dict[str, float]:
        """The four scores of the counts so far, see `scores`."""
        return scores(self.matrix)

    def per_class(self, class_names: Sequence[str]) -> dict[str, dict[str, float | int]]:
        """What the scores are made of, see `per_class`."""
        return per_class(self.matrix, class_names)

    def update(self, target: np.ndarray, pred: np.ndarray) -> None:
        """Counts the pixels of two integer arrays of one shape, of any number of dimensions.

        Raises:
            UserError: The shapes differ, an array holds no integers, or an id lies outside 0..C-1
                (for targets: and is not `ignore_index`). Nothing of the pair is counted then.
        """
        if target.shape != pred.shape:
            raise UserError(
                f"labels of shape {target.shape}, predictions of shape {pred.shape}: expected one "
                "shape; image and label must have the same size"
            )
        if target.size == 0:
            return
        ignored = self.ignore_index
        if not 0 <= ignored < 256:
            ignored = self.num_classes
            target = np.where(target == self.ignore_index, ignored, target)
        # Ignored pixels are counted in a row of their own, which is then dropped: half the time of
        # cutting them out.
        rows = max(self.num_classes, ignored + 1)
        self._check("label", target, rows)
        self._check("prediction", pred, self.num_classes)
        index = target.astype(np.intp)  # bincount takes no narrower type without a copy
        index *= self.num_classes
        index += pred
        counts = np.bincount(index.ravel(), minlength=rows * self.num_classes)
        counts = counts.reshape(rows, self.num_classes)
        counts[ignored] = 0
        strays = np.flatnonzero(counts[self.num_classes :].any(axis=1))
        if strays.size:
            raise self._outside("label", self.num_classes + int(strays[0]))
        self.matrix += counts[: self.num_classes]

    def _check(self, what: str, ids: np.ndarray, end: int) -> None:
        if ids.dtype.kind not in "iu":
            raise UserError(f"{what}s of type {ids.dtype}: expected integer class ids")
        smallest, largest = int(ids.min()), int(ids.max())
        if smallest < 0 or largest >= end:
            raise self._outside(what, smallest if smallest < 0 else largest)

    def _outside(self, what: str, value: int) -> UserError:
        return UserError(
            f"{what} id {value}: expected 0..{self.num_classes - 1}, or in labels "
            f"{self.ignore_index} to ignore a pixel; check dataset.num_classes and "
            "dataset.ignore_index against the label files"
        )


class BoundaryIoU:
    """Mean boundary IoU (Cheng et al. 2021): the IoU of the bands along the outlines of a class.

    A pixel is in the band of its class if a pixel of another class, or the image's border, lies
    within the band's width, diagonals counting as one. Ignored pixels are a class of their own in
    label and prediction alike, and are not counted. As with mIoU, pixels are counted over all
    images and the mean is over the classes that have any.

    Args:
        num_classes: C.
        ignore_index: Target id of the pixels that are not counted.
        width: Of the band, as a share of the image's diagonal; at least one pixel.

    Attributes:
        counts: C×2 int64: pixels in both bands, in either.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, width: float = 0.02) -> None:
        if not 0 < width <= 1:
            raise UserError(f"width={width}: expected a share of the image's diagonal, as 0.02")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.width = width
        self.clear()

    def clear(self) -> None:
        """Forgets all counts."""
        self.counts = np.zeros((self.num_classes, 2), np.int64)

    def update(self, target: np.ndarray, pred: np.ndarray) -> None:
        """Counts an image: two H×W arrays of class ids."""
        ignored = target == self.ignore_index
        distance = max(1, round(self.width * math.hypot(*target.shape)))
        bands = []
        for ids in (target, pred):
            ids = np.where(ignored, -1, ids.astype(np.int16))
            in_band = _near_another(ids, distance) & ~ignored
            bands.append(np.where(in_band, ids, -1).ravel())
        first, second = bands
        both = first[(first == second) & (first >= 0)]
        sizes = sum(np.bincount(b[b >= 0], minlength=self.num_classes) for b in bands)
        common = np.bincount(both, minlength=self.num_classes)
        self.counts += np.stack([common, sizes - common], axis=1)

    def scores(self) -> dict[str, float]:
        """`boundary_miou`, NaN if nothing was counted."""
        iou = _ratio(self.counts[:, 0], self.counts[:, 1])
        return {"boundary_miou": _mean(iou[~np.isnan(iou)])}


def _near_another(ids: np.ndarray, distance: int) -> np.ndarray:
    """Whether another id, or the border of the image, is within `distance` rows and columns."""
    height, width = ids.shape
    padded = np.pad(ids, 1, constant_values=-2)
    near = np.zeros(ids.shape, bool)
    for y in range(3):
        for x in range(3):
            near |= padded[y : y + height, x : x + width] != ids
    reach = distance - 1
    for axis in (0, 1):  # the square's sides one after the other, by differences of running sums
        near = np.moveaxis(near, axis, 0)
        sums = np.cumsum(np.pad(near, [(reach + 1, reach), (0, 0)]), axis=0, dtype=np.int32)
        near = np.moveaxis(sums[2 * reach + 1 :] > sums[: -2 * reach - 1], 0, axis)
    return near


def scores(matrix: np.ndarray) -> dict[str, float]:
    """The four scores of Long et al. (2015), section 5, as fractions.

    Args:
        matrix: C×C counts, rows are targets, columns predictions.

    Returns:
        pixel_acc: Share of the pixels that is right.
        macc: Mean over the classes present in the targets of the share of their pixels that is
            right.
        miou: Mean IoU over the classes present in the targets or predicted.
        fwiou: IoU weighted by the share of a class in the targets.
        Each is NaN if no pixel was counted.
    """
    iou, acc, target_pixels, _ = _by_class(matrix)
    present = target_pixels > 0
    total = target_pixels.sum()
    return {
        "pixel_acc": float(_ratio(np.trace(matrix), total)),
        "macc": _mean(acc[present]),
        "miou": _mean(iou[~np.isnan(iou)]),
        "fwiou": float(_ratio((target_pixels * iou)[present].sum(), total)),
    }


def per_class(matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """What the scores are made of, by class name in the order of the ids.

    Args:
        matrix: C×C counts, rows are targets, columns predictions.
        class_names: C names.

    Returns:
        For every class `iou` (NaN if neither present nor predicted), `acc` (NaN if absent from the
        targets), `target_pixels` and `pred_pixels`.
    """
    if len(class_names) != len(matrix):
        raise UserError(
            f"{len(class_names)} class names for {len(matrix)} classes: expected one name a class; "
            "check dataset.class_names against dataset.num_classes"
        )
    columns = zip(*_by_class(matrix), strict=True)
    return {
        name: {"iou": float(i), "acc": float(a), "target_pixels": int(t), "pred_pixels": int(p)}
        for name, (i, a, t, p) in zip(class_names, columns, strict=True)
    }


def _by_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    right = np.diag(matrix)
    target_pixels, pred_pixels = matrix.sum(axis=1), matrix.sum(axis=0)
    iou = _ratio(right, target_pixels + pred_pixels - right)
    return iou, _ratio(right, target_pixels), target_pixels, pred_pixels


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole > 0))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
