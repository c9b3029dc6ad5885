"""Counts of pixels by class, and the segmentation scores derived from them. NumPy only."""

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
        """The scores of the counts so far, see `scores`."""
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


def scores(matrix: np.ndarray) -> dict[str, float]:
    """The four scores of Long et al. (2015), section 5, mean Dice and Cohen's kappa, as fractions.

    Args:
        matrix: C×C counts, rows are targets, columns predictions.

    Returns:
        pixel_acc: Share of the pixels that is right.
        macc: Mean over the classes present in the targets of the share of their pixels that is
            right.
        miou: Mean IoU over the classes present in the targets or predicted.
        fwiou: IoU weighted by the share of a class in the targets.
        mdice: Mean Dice (F1) over the same classes as mIoU.
        kappa: Agreement of targets and predictions beyond what their class shares give by chance
            (Cohen, 1960): 0 at chance, 1 if all is right; NaN if both are of one class alone.
        Each is NaN if no pixel was counted.
    """
    iou, dice, _, acc = _ratios(matrix)
    target_pixels, pred_pixels = matrix.sum(axis=1), matrix.sum(axis=0)
    present = target_pixels > 0
    total = target_pixels.sum()
    by_chance = ratio(target_pixels @ pred_pixels.astype(float), total)  # pixels
    return {
        "pixel_acc": float(ratio(np.trace(matrix), total)),
        "macc": mean(acc[present]),
        "miou": mean(iou[~np.isnan(iou)]),
        "fwiou": float(ratio((target_pixels * iou)[present].sum(), total)),
        "mdice": mean(dice[~np.isnan(dice)]),
        "kappa": float(ratio(np.trace(matrix) - by_chance, total - by_chance)),
    }


def per_class(matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """What the scores are made of, by class name in the order of the ids.

    Args:
        matrix: C×C counts, rows are targets, columns predictions.
        class_names: C names.

    Returns:
        For every class `iou` and `dice` (F1; NaN if neither present nor predicted), `precision`
        (NaN if never predicted), `recall` (NaN if absent from the targets), `acc`, which is the
        recall by the name that segmentation gives it, `target_pixels` and `pred_pixels`.
    """
    if len(class_names) != len(matrix):
        raise UserError(
            f"{len(class_names)} class names for {len(matrix)} classes: expected one name a class; "
            "check dataset.class_names against dataset.num_classes"
        )
    iou, dice, precision, recall = (column.tolist() for column in _ratios(matrix))
    return {
        name: {
            "iou": iou[i],
            "acc": recall[i],
            "dice": dice[i],
            "precision": precision[i],
            "recall": recall[i],
            "target_pixels": int(matrix[i].sum()),
            "pred_pixels": int(matrix[:, i].sum()),
        }
        for i, name in enumerate(class_names)
    }


def _ratios(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """IoU, Dice, precision and recall by class."""
    right = np.diag(matrix)
    target_pixels, pred_pixels = matrix.sum(axis=1), matrix.sum(axis=0)
    both = target_pixels + pred_pixels
    return (
        ratio(right, both - right),
        ratio(2 * right, both),
        ratio(right, pred_pixels),
        ratio(right, target_pixels),
    )


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole > 0))


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
