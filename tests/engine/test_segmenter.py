"""The one inference path: padding, cutting back, windows, scales and mirror images."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from omegaconf import OmegaConf

from src.cli.command import compose_config
from src.engine.segmenter import Segmenter, arg_max, window_starts
from src.utils.errors import UserError
from src.utils.normalization import Normalization

PLAIN = Normalization("rgb", (0, 0, 0), (1, 1, 1))


class Spy(nn.Cell):
    """A pixel-wise network (the channels are the logits) that remembers the sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def construct(self, images: Tensor) -> Tensor:
        self.sizes.append(images.shape)
        return images


class Column(nn.Cell):
    """Logits that depend on the place: class 1 in the left half of the map, else class 0."""

    def construct(self, images: Tensor) -> Tensor:
        left = ops.arange(images.shape[3]) < images.shape[3] // 2
        plane = left.astype(ms.float32) * 4
        one = ops.zeros_like(images[:, :1]) + plane
        return ops.concat((ops.zeros_like(one) + 2, one), axis=1)


@pytest.fixture(autouse=True)
def _pynative():
    ms.set_context(mode=ms.PYNATIVE_MODE)


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 60, (height, width, 3), np.uint8)


@pytest.mark.parametrize("classes", [1, 2, 21, 256])
def test_the_arg_max_is_numpys_also_where_scores_are_equal(classes):
    scores = np.random.default_rng(0).integers(-9, 9, (classes, 23, 31)).astype(np.float32)
    assert np.array_equal(arg_max(scores), scores.argmax(axis=0))
    scores[:, 3] = -np.inf
    assert np.array_equal(arg_max(scores), scores.argmax(axis=0))


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (1, 1), (100, 31)])
def test_any_size_is_padded_to_32_and_the_result_cut_back(size):
    spy = Spy()
    picture = image(*size)
    assert np.array_equal(Segmenter(spy, PLAIN).predict(picture), picture.argmax(axis=2))
    padded = tuple(-(-s // 32) * 32 for s in size)
    assert spy.sizes == [(1, 3, *padded)]


def test_padding_is_zero_after_normalisation():
    class Sum(nn.Cell):
        def construct(self, images):
            total = images.abs().sum()
            return ops.stack((images[:, 0] * 0, images[:, 0] * 0 + total), axis=1)

    picture = np.full((40, 40, 3), 100, np.uint8)
    exact = Normalization("rgb", (100, 100, 100), (50, 50, 50))
    probabilities = Segmenter(Sum(), exact).probabilities(picture)
    assert probabilities[1].max() == 0.5  # nothing but zeros reached the network


def test_windows_cover_everything_and_agree_with_the_whole_for_a_pixelwise_network():
    picture = image(70, 100)
    whole = Segmenter(Spy(), PLAIN).probabilities(picture)
    spy = Spy()
    parts = Segmenter(spy, PLAIN, window=(32, 64), overlap=0.25).probabilities(picture)
    assert np.allclose(whole, parts, atol=1e-5)
    assert len(spy.sizes) == 3 * 2  # rows 0 24 38, columns 0 36
    assert set(spy.sizes) == {(1, 3, 32, 64)}


def test_window_starts_by_hand():
    assert window_starts(32, 32, 0.5) == [0]
    assert window_starts(20, 32, 0.5) == [0]
    assert window_starts(70, 32, 0.5) == [0, 16, 32, 38]
    assert window_starts(64, 32, 0.0) == [0, 32]


def test_a_mirror_image_is_turned_back_before_averaging():
    picture = image(32, 64)
    assert np.allclose(
        Segmenter(Spy(), PLAIN, flip=True).probabilities(picture),
        Segmenter(Spy(), PLAIN).probabilities(picture),
        atol=1e-6,
    )
    # A network that marks the left half marks both halves alike once averaged with its mirror
    averaged = Segmenter(Column(), PLAIN, flip=True).probabilities(picture)
    assert np.allclose(averaged[:, :, :32], averaged[:, :, 32:][:, :, ::-1], atol=1e-6)
    alone = Segmenter(Column(), PLAIN).probabilities(picture)
    assert alone[1, 0, 0] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert averaged[1, 0, 0] == pytest.approx(0.5, abs=1e-6)


def test_scales_run_resized_images_and_average_probabilities_at_native_size():
    spy = Spy()
    picture = np.full((64, 96, 3), (10, 20, 15), np.uint8)
    probabilities = Segmenter(spy, PLAIN, scales=(0.5, 1.0)).probabilities(picture)
    assert spy.sizes == [(1, 3, 32, 64), (1, 3, 64, 96)]
    assert probabilities.shape == (3, 64, 96)
    expected = np.exp([10.0, 20.0, 15.0]) / np.exp([10.0, 20.0, 15.0]).sum()
    assert np.allclose(probabilities, expected[:, None, None], atol=1e-5)


def test_multiscale_averages_six_scales_and_their_mirror_images():
    """Two classes whose logits differ by w / 64 in the left half of a map of w columns.

    At the left border the image gives sigmoid(w / 64) at each scale, its mirror image sigmoid(0).
    """

    class Half(nn.Cell):
        def construct(self, images: Tensor) -> Tensor:
            width = images.shape[3]
            left = (ops.arange(width) < width // 2).astype(ms.float32) * (width / 64)
            return ops.concat((ops.zeros_like(images[:, :1]), images[:, :1] * 0 + left), axis=1)

    options = compose_config("eval", ["inference=multiscale"]).inference
    options = OmegaConf.to_container(options, resolve=True) | {"fast_convolutions": False}
    assert options["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and options["flip"] is True
    probabilities = Segmenter(Half(), PLAIN, **options).probabilities(image(64, 128))
    widths = np.array([64, 96, 128, 160, 192, 224])
    expected = (np.mean(1 / (1 + np.exp(-widths / 64))) + 0.5) / 2
    assert probabilities.shape == (2, 64, 128)
    for column in (0, -1):  # the mirror image has its left half at the right
        assert np.allclose(probabilities[1, :, column], expected, atol=1e-6)
        assert np.allclose(probabilities[0, :, column], 1 - expected, atol=1e-6)
    flipped = compose_config("eval", ["inference.flip=true"]).inference
    assert (flipped.scales, flipped.flip, flipped.window) == ([1.0], True, None)


def test_evaluation_mode_is_left_again():
    network = Spy().set_train(True)
    Segmenter(network, PLAIN).predict(image(32, 32))
    assert network.training


@pytest.mark.parametrize(
    ("options", "named"),
    [({"window": (16, 64)}, "window"), ({"overlap": 1.0}, "overlap"), ({"scales": ()}, "scales")],
)
def test_impossible_options_are_refused(options, named):
    with pytest.raises(UserError, match=f"inference.{named}"):
        Segmenter(Spy(), PLAIN, **options)


def test_one_graph_serves_all_sizes():
    ms.set_context(mode=ms.GRAPH_MODE)
    network = nn.Conv2d(3, 2, 3, pad_mode="pad", padding=1)
    segmenter = Segmenter(network, PLAIN)
    for size in ((40, 50), (64, 64), (33, 97)):
        assert segmenter.predict(image(*size)).shape == size
    assert len(segmenter._heads) == 1
    assert len(segmenter._heads["logits"].compile_cache) == 1


def test_images_are_padded_to_multiples_of_a_size_of_ones_choice():
    spy = Spy()
    segmenter = Segmenter(spy, PLAIN, pad_to=(64, 96))
    for size in ((33, 47), (64, 96), (65, 20)):
        picture = image(*size)
        assert np.array_equal(segmenter.predict(picture), picture.argmax(axis=2))
    assert spy.sizes == [(1, 3, 64, 96), (1, 3, 64, 96), (1, 3, 128, 96)]
    assert "(64, 96)" in segmenter.protocol["padding"]
    with pytest.raises(UserError, match=r"inference.pad_to=\[64, 50\]"):
        Segmenter(spy, PLAIN, pad_to=(64, 50))


@pytest.mark.parametrize("fast", [True, False])
def test_the_own_convolutions_of_the_cpu_can_be_switched_off(fast):
    network = nn.Conv2d(3, 4, 3, weight_init="normal")
    Segmenter(network, PLAIN, fast_convolutions=fast).predict(image(32, 32))
    assert isinstance(network.conv2d, nn.Cell) is fast
