"""Mean boundary IoU. NumPy only."""

import math

import numpy as np

from src.metrics.confusion_matrix import mean, ratio
from src.utils.errors import UserError


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
        iou = ratio(self.counts[:, 0], self.counts[:, 1])
        return {"boundary_miou": mean(iou[~np.isnan(iou)])}


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
