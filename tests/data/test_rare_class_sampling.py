"""Images drawn for rare classes: the formula, the epoch's size, shares of processes, resuming."""

import math
from collections import Counter

import numpy as np
import pytest

from src.data.datamodule import SegDataModule
from src.data.rare_class_sampling import RareClassSampling, class_pixels
from src.data.sources.folder import FolderSource
from src.data.transforms import TrainTransform
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB
from tests.data.samples import png, write_numbered

# Images by class: 0 in all, 1 in two, 2 in one, 3 in none; shares 0.8, 0.15, 0.05
PIXELS = np.array([[90, 10, 0, 0], [100, 0, 0, 0], [60, 20, 20, 0], [70, 30, 0, 0]])


def test_classes_are_drawn_by_the_papers_softmax():
    """Equation 6 by hand, with T = 0.5: exponents 0.4, 1.7 and 1.9 for shares 0.8, 0.15, 0.05."""
    sampling = RareClassSampling(PIXELS, 0.5)
    weights = [math.exp((1 - share) / 0.5) for share in (320 / 400, 60 / 400, 20 / 400)]
    expected = [weight / sum(weights) for weight in weights]
    assert expected == pytest.approx([0.10928, 0.40097, 0.48975], abs=1e-5)
    assert sampling.probabilities.tolist() == pytest.approx([*expected, 0])


def test_images_come_as_often_as_their_classes_say():
    """An image's probability: of each class in it, P(c) over the number of images that hold c."""
    sampling, rng = RareClassSampling(PIXELS, 0.5), np.random.default_rng(0)
    draws = [sampling.draw(rng) for _ in range(20_000)]
    assert all(PIXELS[index, class_id] for index, class_id in draws)
    p0, p1, p2, _ = sampling.probabilities
    expected = [p0 / 4 + p1 / 3, p0 / 4, p0 / 4 + p1 / 3 + p2, p0 / 4 + p1 / 3]
    counts = Counter(index for index, _ in draws)
    assert [counts[i] / 20_000 for i in range(4)] == pytest.approx(expected, abs=0.012)


def test_a_low_temperature_draws_the_rarest_class_alone_and_does_not_overflow():
    assert RareClassSampling(PIXELS, 1e-4).probabilities.tolist() == pytest.approx([0, 0, 1, 0])


def test_impossible_temperatures_and_void_labels_are_refused():
    with pytest.raises(UserError, match="rare_class_sampling=0: expected a temperature above 0"):
        RareClassSampling(PIXELS, 0)
    with pytest.raises(UserError, match="none of the 2 samples has a valid pixel"):
        RareClassSampling(np.zeros((2, 3), np.int64), 0.01)


def test_pixels_are_counted_by_image_and_class_and_void_is_no_class():
    labels = [np.array([[0, 1, 1], [2, 9, 9]]), np.array([[2, 2, 2]]), np.array([[1]])]
    rows = [(str(i), b"", png(label.astype(np.uint8))) for i, label in enumerate(labels)]
    assert class_pixels(rows, 2, 3, 9).tolist() == [[1, 2, 1], [0, 0, 3]]
    assert class_pixels(rows, 3, 3, 2).tolist() == [[1, 2, 0], [0, 0, 0], [0, 1, 0]]


COUNT = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve images of class 0; the last holds a spot of class 1."""
    labels = np.zeros((COUNT, 64, 96), np.uint8)
    labels[-1, 30:34, 80:84] = 1
    return write_numbered(tmp_path_factory.mktemp("data") / "set", labels)


def module(root, tmp_path, temperature=0.01, **options):
    options = {"num_classes": 2, "crop_size": (32, 32), "scale_range": None, **options}
    return SegDataModule(
        root,
        FolderSource,
        tmp_path / "prepared",
        rare_class_sampling=temperature,
        num_workers=1,
        **options,
    )


def drawn(data, epochs=1, **options):
    """The numbers of the images of each batch, epoch by epoch."""
    batches = data.train_batches(IMAGENET_RGB, **options)
    iterator = batches.create_tuple_iterator(num_epochs=epochs, output_numpy=True)
    return [
        [
            np.round(images[:, 0, 0, 0] * 58.395 + 123.675).astype(int).tolist()
            for images, _ in iterator
        ]
        for _ in range(epochs)
    ]


def test_an_epoch_keeps_its_size_and_the_rare_class_is_in_most_of_its_crops(root, tmp_path):
    crops = module(root, tmp_path).train_crops()
    epochs = [crops.keys(epoch) for epoch in range(1, 31)]
    assert {len(keys) for keys in epochs} == {COUNT}
    samples = [crops[key] for keys in epochs for key in keys]
    assert {name for name, *_ in samples} == {"11"}
    # A crop begins at one of 65 columns, and holds the spot from 49 on: 16 places; ten are tried
    held = np.mean([(label == 1).any() for _, _, label, _ in samples])
    assert held == pytest.approx(1 - (49 / 65) ** 10, abs=0.04)


def test_the_log_names_the_probability_of_each_class(root, tmp_path, caplog):
    """Of 73,728 pixels 16 are class 1: shares 0.99978 and 0.00022, which T = 1 draws as 1 : e."""
    with caplog.at_level("INFO"):
        module(root, tmp_path, 1.0, class_names=["ground", "spot"]).train_crops()
    assert "images are drawn for ground 26.9%, spot 73.1%" in caplog.text


def test_order_is_a_function_of_seed_and_epoch_and_resumes(root, tmp_path):
    whole = drawn(module(root, tmp_path, 10.0), 3)
    assert whole[1:] == drawn(module(root, tmp_path, 10.0), 2, first_epoch=2)
    assert whole[0] != whole[1]
    assert whole != drawn(module(root, tmp_path, 10.0, seed=1), 3)
    # Amid an epoch, as the trainer goes on
    batches = module(root, tmp_path, 10.0).train_batches(IMAGENET_RGB)
    batches.set_init_step(4)  # of three steps an epoch
    iterator = batches.create_tuple_iterator(num_epochs=3, output_numpy=True)
    images = next(iter(iterator))[0]
    first = np.round(images[:, 0, 0, 0] * 58.395 + 123.675).astype(int).tolist()
    assert first == whole[1][1]


def test_processes_draw_what_one_would_and_never_the_same_draw(root, tmp_path):
    one = drawn(module(root, tmp_path, 10.0, batch_size=4))[0]
    two = [
        drawn(module(root, tmp_path, 10.0, batch_size=2), rank=rank, world_size=2)[0]
        for rank in range(2)
    ]
    assert one == [first + second for first, second in zip(*two, strict=True)]


def test_without_it_every_image_comes_once_and_in_the_order_it_had(root, tmp_path):
    crops = module(root, tmp_path, None).train_crops()
    order = np.random.default_rng((0, 1)).permutation(COUNT)
    assert [crops[key][0] for key in crops.keys(1)] == [f"{i:02}" for i in order]


def test_without_it_a_crop_is_drawn_by_seed_epoch_and_image_alone(root, tmp_path):
    data = module(root, tmp_path, None, scale_range=(0.5, 2.0), seed=5)
    crops, samples = data.train_crops(), data.eval_samples("train")
    transform = TrainTransform((32, 32), (0.5, 2.0), 0.5, 255)
    for key, epoch in ((2 * COUNT + 11, 2), (3 * COUNT + 11, 3)):
        _, image, label, _ = crops[key]
        rng = np.random.default_rng((5, epoch, 11))
        expected = transform(samples[11].image, samples[11].label, rng)
        assert np.array_equal(image, expected[0]) and np.array_equal(label, expected[1])
