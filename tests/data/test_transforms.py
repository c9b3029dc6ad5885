"""Augmentation: one crop for both, the geometry of scale-then-crop, seeded."""

import cv2
import numpy as np
import pytest

from src.data.augmentations import PhotometricJitter
from src.data.transforms import TrainTransform, decode_image, decode_label, network_input
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB, TUTORIAL_BGR, Normalization

PLAIN = Normalization("rgb", (0, 0, 0), (1, 1, 1))


def transform(crop=(32, 32), scales=(1.0, 1.0), flip=0.0, augmentations=(), share=None):
    return TrainTransform(crop, scales, flip, 255, augmentations, share)


def augmented(augment, image, label, rng, normalization=PLAIN):
    """What the network gets of a pair."""
    return network_input(*augment(image, label, rng), normalization)


def pair(height, width, seed=0):
    """A smooth image whose red channel is its label times 10, so that drift would show."""
    label = np.zeros((height, width), np.uint8)
    label[height // 4 : 3 * height // 4, width // 3 : 2 * width // 3] = 7
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image[..., 0] = label * 10
    return image, label


def test_a_window_at_scale_one_is_a_plain_crop_of_image_and_label():
    image, label = pair(50, 60)
    rng = np.random.default_rng(3)
    crop, target, padding = transform()(image, label, rng)
    rng = np.random.default_rng(3)
    rng.uniform(1.0, 1.0)
    top, left = int(rng.integers(0, 19)), int(rng.integers(0, 29))
    assert np.array_equal(crop, image[top : top + 32, left : left + 32])
    assert np.array_equal(target, label[top : top + 32, left : left + 32])
    assert all(target[region].size == 0 for region in padding)


def test_a_mirrored_window_is_the_crop_reversed():
    image, label = pair(50, 60)
    plain = transform(flip=0.0)(image, label, np.random.default_rng(5))
    mirrored = transform(flip=1.0)(image, label, np.random.default_rng(5))
    assert np.array_equal(mirrored[0], plain[0][:, ::-1])
    assert np.array_equal(mirrored[1], plain[1][:, ::-1])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25, 2.0])
def test_the_window_equals_resizing_the_whole_image_and_cropping(scale):
    """Where the image's sides and the crop's are whole pixels at both sizes."""
    image, label = pair(60, 80)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    new, crop = (int(scale * 60), int(scale * 80)), (20, 20)
    source = int(20 / scale)  # side of the crop in the image
    whole = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    whole_label = cv2.resize(label, new[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    for seed in range(20):
        found, target, _ = transform(crop, (scale, scale))(
            image, label, np.random.default_rng(seed)
        )
        rng = np.random.default_rng(seed)
        rng.uniform(scale, scale)
        top, left = (scale * int(rng.integers(side - source + 1)) for side in (60, 80))
        if top == int(top) and left == int(left):
            region = np.s_[int(top) : int(top) + 20, int(left) : int(left) + 20]
            inside = np.s_[1:-1, 1:-1]  # at its border the crop knows no further pixels
            assert np.abs(found.astype(int) - whole[region])[inside].max() <= 1
            assert np.array_equal(target, whole_label[region])
            return
    raise AssertionError("no seed gave a whole offset")


def test_scales_and_offsets_of_windows_are_spread_evenly():
    """A ramp tells where a crop lies and how large it is in the image."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None], 100, axis=0)
    image = np.stack([ramp] * 3, axis=2)
    augment = transform((50, 50), (0.5, 2.0))
    steps, middles = [], []
    for seed in range(2000):
        row = augment(image, ramp, np.random.default_rng(seed))[0][25, :, 0].astype(int)
        steps.append((row[-2] - row[1]) / 47)
        middles.append((row[0] + row[-1]) / 2)
    scales = 1 / np.array(steps)
    for bound in (0.75, 1.0, 1.25, 1.5, 1.75):
        assert np.mean(scales < bound) == pytest.approx((bound - 0.5) / 1.5, abs=0.05)
    assert np.mean(middles) == pytest.approx(99.5, abs=3)


def test_small_images_are_padded_below_and_right_with_void_and_zero():
    image, label = pair(20, 25)
    rng = np.random.default_rng(0)
    planes, target = augmented(transform((32, 40)), image, label, rng, IMAGENET_RGB)
    assert planes.shape == (3, 32, 40) and planes.dtype == np.float32
    assert target.dtype == np.int32
    assert (target[20:] == 255).all() and (target[:, 25:] == 255).all()
    assert (target[:20, :25] == label).all()
    assert (planes[:, 20:] == 0).all() and (planes[:, :, 25:] == 0).all()
    assert np.allclose(planes[:, :20, :25], IMAGENET_RGB.apply(image), atol=1e-6)


def test_a_mirrored_small_image_has_its_padding_on_the_left():
    image, label = pair(20, 25)
    _, target, _ = transform((20, 40), flip=1.0)(image, label, np.random.default_rng(0))
    assert (target[:, :15] == 255).all()
    assert np.array_equal(target[:, 15:], label[:, ::-1])


def test_without_crop_size_the_scaled_image_stays_whole():
    image, label = pair(20, 30)
    rng = np.random.default_rng(0)
    planes, target = augmented(transform(None, (2.0, 2.0)), image, label, rng)
    assert planes.shape == (3, 40, 60) and target.shape == (40, 60)
    assert (target != 255).all()


def test_equal_seeds_give_equal_pairs_and_other_seeds_others():
    image, label = pair(80, 90)
    run = transform(scales=(0.5, 2.0), flip=0.5, augmentations=[PhotometricJitter()])
    first, again, other = (
        run(image, label, np.random.default_rng(seed))[0]
        for seed in ((0, 1, 2), (0, 1, 2), (0, 2, 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_augmentation_gets_the_crop_without_its_padding():
    seen = []

    def look(image, label, rng):
        seen.append((image.copy(), label.copy()))
        return image, label

    image, label = pair(20, 25)
    transform((32, 40), augmentations=[look])(image, label, np.random.default_rng(0))
    assert np.array_equal(seen[0][0], image) and np.array_equal(seen[0][1], label)


def stripes():
    """40×400 pixels: class 1 in the last 20 columns, else class 0 and a void row."""
    label = np.zeros((40, 400), np.uint8)
    label[:, 380:] = 1
    label[0] = 255
    return np.repeat(label[..., None], 3, axis=2), label


def drawn_share(label):
    """The largest share of a class among the valid pixels."""
    counts = np.bincount(label[label != 255], minlength=2)
    return counts.max() / counts.sum()


def test_crops_of_little_else_than_one_class_are_drawn_anew():
    image, label = stripes()
    # a crop of 40×40 begins at one of 361 columns and holds the border between the classes from
    # column 341 on; less than 75 % are class 0 where 11 columns or more are class 1: from 351 on,
    # 10 places, hit in 1 - (351 / 361) ** 10 = 24.5 % of cases by ten tries
    plain, mixed = transform((40, 40)), transform((40, 40), share=0.75)
    found = [[], []]
    for seed in range(1000):
        for shares, augment in zip(found, (plain, mixed), strict=True):
            target = augment(image, label, np.random.default_rng(seed))[1]
            shares.append(drawn_share(target))
    assert np.mean(np.array(found[0]) < 0.75) == pytest.approx(10 / 361, abs=0.015)
    assert np.mean(np.array(found[1]) < 0.75) == pytest.approx(0.245, abs=0.04)


def test_a_crop_whose_share_is_the_limit_is_drawn_anew_and_void_does_not_count():
    image, label = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    label[:, :16] = 255
    label[:8, 16:] = 1  # a quarter of what is valid

    def draws(share):
        rng = np.random.default_rng(0)
        wide = np.concatenate([label, label], axis=1)  # every start but 0 and 32 differs
        state = TrainTransform((32, 64), None, 0.0, 255, (), share)
        calls = []
        mixed = state._is_mixed
        state._is_mixed = lambda part: calls.append(part) or mixed(part)
        state(np.concatenate([image, image], axis=1), wide, rng)
        return len(calls)

    assert draws(0.75) == 10
    assert draws(0.76) == 1
    label[label == 1] = 0
    assert draws(1.0) == 10  # one class alone


def test_crops_that_are_taken_at_once_draw_no_more_random_numbers_than_any_crop():
    image, label = pair(80, 90)
    label[::2] = 1
    states = []
    for share, class_id in ((None, None), (0.9, None), (None, 1), (0.9, 1)):
        rng = np.random.default_rng(4)
        target = transform(scales=(0.5, 2.0), share=share)(image, label, rng, class_id)[1]
        states.append((target.tobytes(), rng.uniform()))
    assert states == states[:1] * 4


def test_the_random_numbers_of_a_crop_are_scale_two_offsets_and_the_flip():
    image, label = pair(50, 60)
    drawn, by_hand = np.random.default_rng(7), np.random.default_rng(7)
    transform(scales=(1.0, 1.0), flip=0.5)(image, label, drawn)
    by_hand.uniform(1.0, 1.0)
    by_hand.integers(19), by_hand.integers(29)  # of 50×60 pixels, 32×32
    by_hand.uniform()
    assert drawn.uniform() == by_hand.uniform()


class Offsets:
    """A generator that gives the smallest numbers, but for the columns at which crops begin."""

    def __init__(self, *columns):
        self.columns = iter(columns)
        self.tried = -1

    def uniform(self, low=0.0, high=1.0):
        return low

    def integers(self, count):
        self.tried += 0.5
        return next(self.columns) if self.tried % 1 == 0 else 0


@pytest.mark.parametrize(
    ("share", "class_id", "columns", "taken"),
    [
        (None, None, (0, 22), 0),
        (None, 3, (0, 18, 30), 2),  # 3 is in neither of the first two
        (0.75, None, (0, 30, 18), 2),  # 20 of 20 columns are class 1, 19 class 2; 12 class 1
        (0.75, 3, (18, 30, 22), 2),  # mixed without 3; 3 and 19 columns of class 2; 8, 11 and 1
        (0.75, 3, (0,) * 9 + (30, 22), 9),  # the tenth is the last
    ],
)
def test_a_crop_that_lacks_the_class_asked_for_is_drawn_anew(share, class_id, columns, taken):
    image, label = pair(40, 60)
    label[:, :30], label[:, 30:], label[:, 39] = 1, 2, 3
    rng = Offsets(*columns)
    crop, target, _ = transform((40, 20), share=share)(image, label, rng, class_id)
    place = np.s_[:, columns[taken] : columns[taken] + 20]
    assert rng.tried == taken
    assert np.array_equal(crop, image[place]) and np.array_equal(target, label[place])


def test_a_class_asked_for_must_be_in_the_crop_as_the_network_gets_it():
    """At half the size the second pixel of each two is kept, in both directions."""
    image, label = pair(40, 80)
    label[:] = 0
    label[:, 45] = 3
    rng = Offsets(7, 6)  # column 38 of the crop, which is left out, then 39
    _, target, _ = transform((20, 20), (0.5, 0.5))(image, label, rng, 3)
    assert rng.tried == 1
    assert (target[:, 19] == 3).all() and (target[:, :19] == 0).all()


def test_ten_places_are_tried_for_a_class():
    image, label = stripes()
    # 40 of 400 columns begin at one of 361; from column 341 on, 20 places, they hold class 1
    for class_id, expected in ((None, 20 / 361), (1, 1 - (341 / 361) ** 10)):
        held = [
            (transform((40, 40))(image, label, np.random.default_rng(seed), class_id)[1] == 1).any()
            for seed in range(1000)
        ]
        assert np.mean(held) == pytest.approx(expected, abs=0.04)


def test_a_largest_share_needs_crops_and_is_a_share():
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(UserError, match=f"dataset.max_class_share={share}: expected a share"):
            transform(share=share)
    with pytest.raises(UserError, match="max_class_share=0.75 with dataset.crop_size=null"):
        transform(None, share=0.75)


def test_normalisation_in_bgr_order_is_the_tutorials():
    image = np.array([[[10, 20, 30]]], np.uint8)  # R, G, B
    planes = TUTORIAL_BGR.apply(image)
    expected = [(30 - 103.53) / 57.375, (20 - 116.28) / 57.12, (10 - 123.675) / 58.395]
    assert np.allclose(planes[:, 0, 0], expected, atol=1e-6)


def test_wrong_normalisation_and_scale_ranges_are_refused():
    with pytest.raises(UserError, match="color_order='gbr'"):
        Normalization("gbr")
    with pytest.raises(UserError, match="std="):
        Normalization("rgb", (0, 0, 0), (1, 0, 1))
    with pytest.raises(UserError, match="scale_range"):
        transform(scales=(2.0, 0.5))


@pytest.mark.parametrize(
    "name, given, scaled",
    [
        ("mean", (0.485, 0.456, 0.406), (123.675, 116.28, 103.53)),
        ("std", (0.229, 0.224, 0.225), (58.395, 57.12, 57.375)),
        ("mean", (0.5, 0.5, 0.5), (127.5, 127.5, 127.5)),
    ],
)
def test_normalisation_on_the_0_to_1_scale_is_refused_with_that_of_0_to_255(name, given, scaled):
    with pytest.raises(UserError, match=rf"dataset\.{name}=\[0\.\d.*0–1 scale") as caught:
        Normalization(**{name: given})
    repair = str(caught.value).rpartition(f"dataset.{name}=[")[2].rstrip("]").split(",")
    assert tuple(map(float, repair)) == pytest.approx(scaled)
    assert getattr(Normalization(**{name: scaled}), name) == scaled


def test_images_may_be_taken_as_they_are():
    plain = Normalization("rgb", (0, 0, 0), (1, 1, 1))
    assert plain.apply(np.full((1, 1, 3), 7, np.uint8)).ravel().tolist() == [7, 7, 7]


def test_an_exif_rotation_is_ignored_since_labels_know_none(tmp_path):
    from PIL import Image

    picture = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert decode_image((tmp_path / "turned.jpg").read_bytes()).shape == (10, 20, 3)


def test_decoding_gives_rgb_and_names_what_is_no_image():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes BGR
    encoded = cv2.imencode(".png", red)[1].tobytes()
    assert decode_image(encoded)[0, 0].tolist() == [200, 0, 0]
    for broken in (b"", b"no image", encoded[:20]):
        with pytest.raises(ValueError, match="not an image"):
            decode_image(broken)
    with pytest.raises(ValueError):
        decode_label(b"")
