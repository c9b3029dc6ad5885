"""Classes of one crop pasted into another: pixels by hand, padding, order, repeatability."""

import numpy as np
import pytest

from src.data.copy_paste import CopyPaste
from src.data.datamodule import SegDataModule
from src.data.sources.folder import FolderSource
from src.utils.errors import UserError
from tests.data.samples import write_numbered

NAMES = ("ground", "dog", "cat")


def test_the_pixels_of_the_classes_and_no_others_are_pasted():
    image, other = np.full((2, 3, 3), 10, np.uint8), np.full((2, 3, 3), 200, np.uint8)
    label = np.array([[0, 1, 2], [255, 0, 1]], np.uint8)
    other_label = np.array([[1, 2, 0], [1, 1, 255]], np.uint8)
    pasted, ids = CopyPaste(["dog"], NAMES, 1)(image, label, [], other, other_label)
    assert ids.tolist() == [[1, 1, 2], [1, 1, 1]]
    assert pasted[..., 0].tolist() == [[200, 10, 10], [200, 200, 10]]
    assert (pasted == pasted[..., :1]).all()


def test_nothing_is_pasted_into_padding():
    """It becomes 0 in the network's input, where a label would belong to no pixel."""
    image, other = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 200, np.uint8)
    label, other_label = np.full((2, 2), 255, np.uint8), np.ones((2, 2), np.uint8)
    padding = [(slice(1, 2), slice(None))]
    pasted, ids = CopyPaste(["dog"], NAMES, 1)(image, label, padding, other, other_label)
    assert ids.tolist() == [[1, 1], [255, 255]]
    assert pasted[..., 0].tolist() == [[200, 200], [0, 0]]


COUNT = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight images, each with a dog in a band of its own; odd ones show cats."""
    labels = np.zeros((COUNT, 32, 32), np.uint8)
    for i, label in enumerate(labels):
        label[4 * i : 4 * i + 4] = 1 + i % 2
    path = write_numbered(tmp_path_factory.mktemp("data") / "set", labels)
    (path / "classes.txt").write_text("\n".join(NAMES))
    return path


def crops(root, tmp_path, **options):
    options = {"crop_size": (32, 32), "scale_range": None, "flip": 0, **options}
    module = SegDataModule(root, FolderSource, tmp_path / "prepared", num_workers=1, **options)
    return module.train_crops()


def test_image_and_label_come_from_the_same_crop(root, tmp_path):
    """Rows of the crop are its own image's but for the dog or cat of another one."""
    data = crops(root, tmp_path, copy_paste=["dog", "cat"], copy_paste_probability=1.0)
    sources = set()
    for key in data.keys(1) + data.keys(2):
        name, image, label, _ = data[key]
        numbers = image[:, 0, 0]
        others = set(numbers.tolist()) - {int(name)}
        assert len(others) <= 1  # none where an image was drawn for itself
        for number in {int(name), *others}:
            band = slice(4 * number, 4 * number + 4)
            assert (numbers[band] == number).all()
            assert (label[band] == 1 + number % 2).all()
        assert (label > 0).sum() == 32 * 4 * (1 + len(others))
        sources |= others
    assert len(sources) >= 4


def test_a_second_crop_is_drawn_as_often_as_the_probability_says(root, tmp_path):
    """Half of the crops; the second shows a cat in 4 of 8 images, or in 3 others of 8."""
    data, plain = crops(root, tmp_path, copy_paste=["cat"]), crops(root, tmp_path)
    keys = [key for epoch in range(1, 126) for key in data.keys(epoch)]
    changed = np.mean([not np.array_equal(data[key][1], plain[key][1]) for key in keys])
    assert changed == pytest.approx(0.5 * (4 + 3) / 2 / 8, abs=0.04)


def test_crops_are_a_function_of_seed_epoch_and_image(root, tmp_path):
    options = {"copy_paste": ["dog"], "scale_range": (0.5, 2.0), "seed": 3}
    first, second = crops(root, tmp_path, **options), crops(root, tmp_path, **options)
    for key in first.keys(2):
        assert np.array_equal(first[key][1], second[key][1])
        assert np.array_equal(first[key][2], second[key][2])


def test_without_it_nothing_changes(root, tmp_path):
    plain, none = crops(root, tmp_path), crops(root, tmp_path, copy_paste=None)
    assert all(np.array_equal(plain[key][1], none[key][1]) for key in plain.keys(1))
    assert all(len(np.unique(plain[key][1][..., 0])) == 1 for key in plain.keys(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"copy_paste": ["dogs"]}, r"copy_paste=\[dogs\]: .* no class 'dogs'; did you mean 'dog'"),
        ({"copy_paste": ["train"]}, "no class 'train'; its classes: ground, dog, cat"),
        ({"copy_paste": ["dog"], "copy_paste_probability": 0}, "copy_paste_probability=0: expect"),
        (
            {"copy_paste": ["dog"], "crop_size": None, "batch_size": 1},
            r"copy_paste=\[dog\] with dataset.crop_size=null",
        ),
    ],
)
def test_what_cannot_be_pasted_is_refused(root, tmp_path, options, expected):
    with pytest.raises(UserError, match=expected):
        crops(root, tmp_path, **options)
