"""Augmentations of a crop: where pixels go, what becomes void, how strong they are."""

from functools import partial

import cv2
import numpy as np
import pytest

from src.data.augmentations import (
    VOID,
    Cutout,
    GaussianBlur,
    GaussianNoise,
    PhotometricJitter,
    RandomRotation,
)
from src.data.transforms import TrainTransform, network_input
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB


class Given:
    """A generator that gives these numbers, one a call, whatever is asked for."""

    def __init__(self, *numbers):
        self._numbers = iter(numbers)

    def uniform(self, low=0.0, high=1.0):
        return next(self._numbers)

    def integers(self, high):
        return next(self._numbers)


def pair(height, width):
    """A label of numbered pixels (below 250), and an image that is the label in each channel."""
    label = (np.arange(height * width).reshape(height, width) % 250).astype(np.uint8)
    return np.repeat(label[..., None], 3, axis=2), label


def test_photometric_jitter_of_zero_strength_changes_nothing_and_labels_never_change():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    label = image[..., 0]
    still = PhotometricJitter(0, 0, 0, 0)(image, label, np.random.default_rng(0))
    assert np.array_equal(still[0], image) and np.array_equal(still[1], label)
    changed = [PhotometricJitter()(image, label, np.random.default_rng(i)) for i in range(8)]
    assert any(not np.array_equal(c[0], image) for c in changed)
    assert all(np.array_equal(c[1], label) for c in changed)


def test_brightness_shifts_every_level_by_the_same_amount():
    image = np.full((4, 4, 3), 100, np.uint8)
    jitter = PhotometricJitter(brightness=30, contrast=0, saturation=0, hue=0)
    shifts = {
        int(jitter(image, image[..., 0], np.random.default_rng(i))[0][0, 0, 0]) for i in range(40)
    }
    assert 100 in shifts  # half of the time nothing happens
    assert min(shifts) >= 70 and max(shifts) <= 130 and len(shifts) > 5


def test_a_quarter_turn_moves_every_pixel_of_image_and_label_alike():
    image, label = pair(6, 6)
    turned, target = RandomRotation(180)(image, label, Given(90.0, 0.0))
    assert np.array_equal(target, np.rot90(label))
    assert np.array_equal(turned, np.rot90(image))


def test_a_quarter_turn_of_a_wide_crop_keeps_its_middle_and_voids_what_was_outside():
    image, label = pair(4, 8)
    _, target = RandomRotation(180)(image, label, Given(90.0, 0.0))
    # of 4×8, the middle 4×4 stays inside, and turns
    assert np.array_equal(target[:, 2:6], np.rot90(label[:, 2:6]))
    assert (target[:, :2] == VOID).all() and (target[:, 6:] == VOID).all()


def test_an_eighth_of_a_turn_voids_the_four_corners_and_shows_the_image_in_them():
    image, label = np.full((101, 101, 3), 90, np.uint8), np.full((101, 101), 7, np.uint8)
    turned, target = RandomRotation(180)(image, label, Given(45.0, 0.0))
    assert set(np.unique(target)) == {7, VOID}
    # an octagon remains: the square less four corners of legs 101 - 101 / √2 = 29.6 on each side
    assert np.mean(target == VOID) == pytest.approx(2 * (29.58 / 101) ** 2, abs=0.01)
    assert (turned == 90).all()


def test_rotation_takes_labels_from_the_nearest_pixel_and_never_mixes_them():
    label = np.random.default_rng(0).choice([0, 100], (64, 64)).astype(np.uint8)
    image = np.repeat(label[..., None], 3, axis=2)
    turned, target = RandomRotation(180)(image, label, Given(17.0, 0.0))
    assert set(np.unique(target)) == {0, 100, VOID}
    assert len(np.unique(turned)) > 20


def test_angles_are_spread_evenly_up_to_the_largest():
    """A line from the middle to the right edge tells the angle."""
    label = np.zeros((201, 201), np.uint8)
    label[100, 190] = 1
    label = cv2.dilate(label, np.ones((3, 3), np.uint8))
    image = np.repeat(label[..., None], 3, axis=2)
    augment, angles = RandomRotation(20, 1.0), []
    for seed in range(400):
        _, target = augment(image, label, np.random.default_rng(seed))
        row, column = (np.mean(axis) for axis in np.nonzero(target == 1))
        angles.append(np.degrees(np.arctan2(100 - row, column - 100)))
    assert -20.5 < min(angles) < -18 and 18 < max(angles) < 20.5
    assert np.mean(np.abs(angles) < 10) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    "make", [RandomRotation, Cutout, partial(GaussianBlur, (1, 2)), GaussianNoise]
)
def test_probability_is_the_share_of_crops_that_change(make):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    label = np.zeros((32, 32), np.uint8)
    kept_image, kept_label = image.copy(), label.copy()

    def share(probability):
        augment = make(probability=probability)
        rng = np.random.default_rng(0)
        found = [augment(image, label, rng) for _ in range(600)]
        assert all(f[0].shape == (32, 32, 3) and f[0].dtype == np.uint8 for f in found)
        assert all(f[1].shape == (32, 32) and f[1].dtype == np.uint8 for f in found)
        return np.mean([not np.array_equal(f[0], image) for f in found])

    assert share(0.0) == 0
    assert share(1.0) > 0.99  # an angle may be too small to be seen
    assert share(0.25) == pytest.approx(0.25, abs=0.07)
    assert np.array_equal(image, kept_image) and np.array_equal(label, kept_label)


def test_a_hole_has_its_size_the_mean_colour_and_the_label_void():
    image, label = np.zeros((10, 10, 3), np.uint8), np.full((10, 10), 3, np.uint8)
    image[:, :5] = (100, 40, 201)  # half of the crop: mean 50, 20, 100.5 (even: 100)
    found, target = Cutout(size=4)(image, label, Given(0.0, 5, 6))
    hole = np.zeros((10, 10), bool)
    hole[3:7, 4:8] = True  # four pixels, two before the middle (5, 6)
    assert (found[hole] == (50, 20, 100)).all()
    assert np.array_equal(found[~hole], image[~hole])
    assert (target[hole] == VOID).all() and (target[~hole] == 3).all()


def test_holes_at_the_edge_are_cut_off_there_and_may_be_several():
    image, label = pair(10, 10)
    _, target = Cutout(size=4, count=2)(image, label, Given(0.0, 0, 0, 9, 9))
    hole = np.zeros((10, 10), bool)
    hole[:2, :2] = hole[7:, 7:] = True
    assert np.array_equal(target == VOID, hole)


def test_holes_may_keep_their_label():
    image, label = pair(10, 10)
    found, target = Cutout(size=4, keep_label=True)(image, label, Given(0.0, 5, 5))
    assert np.array_equal(target, label) and not np.array_equal(found, image)


def test_blur_spreads_a_point_by_sigma_and_keeps_the_sum():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    image = cv2.dilate(image, np.ones((5, 5), np.uint8))  # variance of five pixels: 2
    found, label = GaussianBlur((3, 3))(image, image[..., 0], np.random.default_rng(3))
    assert np.array_equal(label, image[..., 0])
    profile = found[..., 1].sum(axis=0) / found[..., 1].sum()
    variance = np.sum(profile * (np.arange(41) - 20) ** 2)
    assert variance == pytest.approx(2 + 3**2, rel=0.05)
    assert found[..., 1].sum() == pytest.approx(25 * 255, rel=0.05)


def test_noise_has_mean_0_its_std_and_is_independent_by_channel():
    image = np.full((200, 200, 3), 128, np.uint8)
    found, _ = GaussianNoise(8, 1.0)(image, image[..., 0], np.random.default_rng(0))
    noise = found.reshape(-1, 3) - 128.0
    assert noise.mean(axis=0) == pytest.approx([0, 0, 0], abs=0.15)
    assert noise.std(axis=0) == pytest.approx([8, 8, 8], rel=0.02)
    assert np.corrcoef(noise.T)[0, 1:] == pytest.approx([0, 0], abs=0.02)


def test_noise_ends_at_black_and_white_and_does_not_wrap_around():
    image = np.zeros((50, 50, 3), np.uint8)
    image[25:] = 255
    found, _ = GaussianNoise(8, 1.0)(image, image[..., 0], np.random.default_rng(0))
    assert found[:25].max() < 60 and found[25:].min() > 195


@pytest.mark.parametrize("ignore_index", [255, 9])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_padding_of_small_images_stays_where_it_is_and_never_counts(ignore_index, flip):
    """An all-white image of one class: whatever counts must be white, and nothing else of it."""
    image, label = np.full((60, 70, 3), 255, np.uint8), np.full((60, 70), 4, np.uint8)
    transform = TrainTransform(
        (100, 100), None, flip, ignore_index, [RandomRotation(45, 1.0), Cutout(20, probability=1)]
    )
    plain = TrainTransform((100, 100), None, flip, ignore_index)
    for seed in range(20):
        result = transform(image, label, np.random.default_rng(seed))
        planes, target = network_input(*result, IMAGENET_RGB)
        _, unturned, padding = plain(image, label, np.random.default_rng(seed))
        assert result[2] == padding
        assert set(np.unique(target)) == {4, ignore_index}
        assert (unturned[target == 4] == 4).all()  # only where there is image
        # turned by at most 45 degrees about its own middle, more than half of it is left, less
        # the corners that the rotation exposes and the hole that is void
        assert 0.4 < np.sum(target == 4) / 4200 < 1
        for region in padding:
            assert (planes[(slice(None), *region)] == 0).all()
            assert (target[region] == ignore_index).all()


def test_void_of_an_augmentation_becomes_the_ignore_index_of_the_dataset():
    image, label = pair(40, 40)
    label[:] = 2
    cutout = [Cutout(10, probability=1)]
    results = [
        TrainTransform((40, 40), None, 0, i, cutout)(image, label, np.random.default_rng(1))[1]
        for i in (255, 0)
    ]
    assert set(np.unique(results[0])) == {2, 255} and set(np.unique(results[1])) == {0, 2}
    assert np.array_equal(results[0] == 255, results[1] == 0)


def test_pixels_that_are_void_in_the_label_turn_with_the_image():
    image, label = pair(32, 32)
    label[:] = 1
    label[:, 20:] = 9
    turn = [lambda image, label, rng: RandomRotation(180)(image, label, Given(90.0, 0.0))]
    _, target, _ = TrainTransform((32, 32), None, 0, 9, turn)(
        image, label, np.random.default_rng(0)
    )
    assert np.array_equal(target, np.rot90(label))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: RandomRotation(181), "RandomRotation degrees=181: expected 0 to 180"),
        (lambda: RandomRotation(probability=2), "RandomRotation probability=2: expected 0 to 1"),
        (lambda: Cutout(size=0), "Cutout size=0: expected a whole number from 1 on"),
        (lambda: Cutout(count=-1), "Cutout count=-1: expected"),
        (lambda: Cutout(probability=-1), "Cutout probability=-1: expected 0 to 1"),
        (lambda: GaussianBlur([2, 1]), r"GaussianBlur sigma=\[2, 1\]: expected \[smallest"),
        (lambda: GaussianBlur([0, 1]), r"GaussianBlur sigma=\[0, 1\]: expected"),
        (lambda: GaussianBlur([1]), r"GaussianBlur sigma=\[1\]: expected"),
        (lambda: GaussianNoise(-1), "GaussianNoise std=-1: expected 0 to 255"),
        (lambda: GaussianNoise(float("nan")), "GaussianNoise std=nan: expected 0 to 255"),
        (lambda: PhotometricJitter(hue=200), "PhotometricJitter hue=200: expected 0 to 180"),
    ],
)
def test_impossible_strengths_are_refused_in_a_line(make, line):
    with pytest.raises(UserError, match=line) as caught:
        make()
    assert "\n" not in str(caught.value)
