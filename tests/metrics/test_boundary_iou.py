"""Boundary IoU against hand counts and against Cheng et al.'s way of computing it, by erosion."""

import cv2
import numpy as np
import pytest

from src.metrics import BoundaryIoU
from src.utils.errors import UserError

RNG = np.random.default_rng(0)


def counted(target, pred, num_classes=2, **options):
    metric = BoundaryIoU(num_classes, **options)
    metric.update(np.array(target, np.uint8), np.array(pred, np.uint8))
    return metric


def eroded_bands(ids: np.ndarray, num_classes: int, width: float) -> np.ndarray:
    """C×H×W: each class's mask without its erosion, in a frame of zeros."""
    distance = max(1, round(width * np.hypot(*ids.shape)))
    bands = []
    for c in range(num_classes):
        framed = cv2.copyMakeBorder((ids == c).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=distance)
        bands.append((framed - inner)[1:-1, 1:-1].astype(bool))
    return np.array(bands)


def blobs(shape=(47, 61), num_classes=4) -> np.ndarray:
    noise = RNG.normal(size=(num_classes, *shape)).astype(np.float32)
    return np.array([cv2.GaussianBlur(n, (0, 0), 5) for n in noise]).argmax(0).astype(np.uint8)


@pytest.mark.parametrize("width", [0.001, 0.02, 0.08])  # 1, 2 and 6 pixels
def test_bands_are_those_of_eroded_masks(width):
    pairs = [(blobs(), blobs()) for _ in range(3)]
    metric = BoundaryIoU(4, width=width)
    expected = np.zeros((4, 2), np.int64)
    for target, pred in pairs:
        metric.update(target, pred)
        a, b = (eroded_bands(ids, 4, width) for ids in (target, pred))
        expected += np.stack([(a & b).sum((1, 2)), (a | b).sum((1, 2))], axis=1)
    assert np.array_equal(metric.counts, expected)
    mean = (expected[:, 0] / expected[:, 1]).mean()
    assert metric.scores() == {"boundary_miou": pytest.approx(mean)}


def test_a_square_that_is_one_pixel_too_small_by_hand():
    target = np.zeros((9, 9), np.uint8)
    target[2:7, 2:7] = 1  # 5×5, its band of one pixel is its rim: 16
    pred = np.zeros((9, 9), np.uint8)
    pred[3:6, 3:6] = 1  # 3×3, its rim: 8, none of it on the other
    metric = counted(target, pred, width=0.02)
    assert metric.counts[1].tolist() == [0, 24]
    # Ground: the frame of 32, and the ring around the square: 24 at distance 1 outside of each
    assert metric.counts[0].tolist() == [32, 32 + 24 + 16]
    assert metric.scores()["boundary_miou"] == pytest.approx((0 + 32 / 72) / 2)


def test_equal_maps_give_one_and_an_absent_class_is_left_out():
    ids = blobs(num_classes=3)
    assert counted(ids, ids, num_classes=5).scores() == {"boundary_miou": 1.0}


def test_predictions_on_ignored_pixels_do_not_count():
    target, pred = blobs(num_classes=2), blobs(num_classes=2)
    target[10:20, 10:40] = 255
    other = pred.copy()
    other[10:20, 10:40] = 1 - other[10:20, 10:40]
    assert np.array_equal(counted(target, pred).counts, counted(target, other).counts)
    assert np.isnan(counted(np.full((8, 8), 255), np.zeros((8, 8))).scores()["boundary_miou"])


def test_counts_of_parts_add_up_and_a_width_that_cannot_be_is_refused():
    a, b, c, d = (blobs(num_classes=2) for _ in range(4))
    metric = counted(a, b)
    metric.update(c, d)
    assert np.array_equal(metric.counts, counted(a, b).counts + counted(c, d).counts)
    with pytest.raises(UserError, match="width=2: expected a share"):
        BoundaryIoU(2, width=2)
