"""Faster convolutions: the values and gradients of MindSpore's own, where they take their place."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.device import cpu_convolutions as convolutions
from src.device.cpu_convolutions import (
    MANY_CHANNELS,
    MANY_CHANNELS_PLAIN,
    use_cpu_convolutions,
    use_own_convolutions,
)
from src.device.cpu_convolutions.flipped_kernel import FlippedKernelConv2d
from src.device.cpu_convolutions.im2col import Im2colConv2d
from src.device.cpu_convolutions.native.compilation import compiled_library
from src.device.cpu_convolutions.native.layers import TwoInputs
from src.device.cpu_convolutions.permutation import PermuteRows
from src.device.cpu_convolutions.winograd import (
    POINTS,
    PlainTransforms,
    WinogradConv2d,
    matrices,
)
from src.engine.segmenter import Segmenter
from src.utils.normalization import IMAGENET_RGB
from tests.device.gradients import normal, values_and_gradients

MODES = [ms.PYNATIVE_MODE, ms.GRAPH_MODE]


@pytest.fixture(autouse=True)
def pynative():
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def graph_mode(pynative):
    ms.set_context(mode=ms.GRAPH_MODE)


def plain_and_faster(kind: type, *args, **options) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two convolutions of the same weights, one of them changed."""
    plain = nn.Conv2d(*args, **options)
    for parameter in plain.get_parameters():
        parameter.set_data(Tensor(normal(*parameter.shape)))
    faster = nn.Conv2d(*args, **options)
    ms.load_param_into_net(faster, plain.parameters_dict())
    use_cpu_convolutions(faster)
    assert isinstance(faster.conv2d, kind)
    return plain, faster


def assert_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


MANY = MANY_CHANNELS_PLAIN
EACH_KIND = [
    (FlippedKernelConv2d, (3, 8, 3), {"pad_mode": "same"}),
    (FlippedKernelConv2d, (8, 6, 5), {"pad_mode": "pad", "padding": 2, "has_bias": True}),
    (FlippedKernelConv2d, (4, 5, (3, 1)), {"pad_mode": "same"}),
    (WinogradConv2d, (MANY, MANY + 8, 3), {"pad_mode": "same", "has_bias": True}),
    (WinogradConv2d, (MANY + 8, MANY, 3), {"pad_mode": "pad", "padding": 1}),
    (Im2colConv2d, (MANY, MANY + 8, 7), {"pad_mode": "same", "has_bias": True}),
    (Im2colConv2d, (MANY, MANY, (1, 11)), {"pad_mode": "same"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=["pynative", "graph"])
@pytest.mark.parametrize("kind, args, options", EACH_KIND)
@pytest.mark.parametrize("size", [(2, 8, 12), (1, 7, 5), (3, 1, 2)])
def test_values_and_all_gradients_are_mindspores_own(kind, args, options, size, mode):
    ms.set_context(mode=mode)
    plain, faster = plain_and_faster(kind, *args, **options)
    batch, height, width = size
    images = normal(batch, args[0], height, width)
    ours, theirs = values_and_gradients(faster, images), values_and_gradients(plain, images)
    assert len(theirs) == 3 + bool(options.get("has_bias"))
    for name, value in theirs.items():
        assert_equal(ours[name], value)


@pytest.mark.slow
@pytest.mark.parametrize("kind, args, options", EACH_KIND)
def test_one_dynamic_graph_runs_batches_of_all_sizes(kind, args, options, graph_mode):
    plain, faster = plain_and_faster(kind, *args, **options)
    faster.set_inputs(Tensor(shape=[None, args[0], None, None], dtype=ms.float32))
    for batch, height, width in [(1, 4, 5), (2, 9, 16), (1, 1, 3)]:
        images = Tensor(normal(batch, args[0], height, width))
        assert_equal(faster(images).asnumpy(), plain(images).asnumpy())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=["pynative", "graph"])
def test_winograds_transforms_by_mindspores_operators_give_the_same(mode, monkeypatch):
    ms.set_context(mode=mode)
    images = normal(2, MANY, 7, 9)
    _, native = plain_and_faster(WinogradConv2d, MANY, MANY + 8, 3, pad_mode="same")
    monkeypatch.setattr(convolutions, "compiled_library", lambda: None)
    _, plain = plain_and_faster(WinogradConv2d, MANY, MANY + 8, 3, pad_mode="same")
    assert isinstance(plain.conv2d.transforms, PlainTransforms)
    ours, theirs = values_and_gradients(native, images), values_and_gradients(plain, images)
    for name, value in theirs.items():
        assert_equal(ours[name], value)


@pytest.mark.parametrize("compiler", [True, False])
def test_winograd_begins_at_the_channels_from_which_it_is_faster(compiler, monkeypatch):
    if compiler and compiled_library() is None:
        pytest.skip("no C++ compiler")
    if not compiler:
        monkeypatch.setattr(convolutions, "compiled_library", lambda: None)
    fewest = MANY_CHANNELS if compiler else MANY_CHANNELS_PLAIN
    for channels, kind in ((fewest, WinogradConv2d), (fewest - 1, FlippedKernelConv2d)):
        plain_and_faster(kind, channels, 128, 3, pad_mode="same")


def test_rows_are_permuted_as_transpose_would():
    x = normal(2, 3, 4, 5)
    rows = PermuteRows()(Tensor(x), (2, 3, 4), (2, 0, 1))
    assert rows.asnumpy().tolist() == x.transpose(2, 0, 1, 3).reshape(-1, 5).tolist()


def test_a_tile_by_winograd_is_the_sum_of_products_in_a_window():
    b_t, g, a = (matrix.astype(np.float64) for matrix in matrices())
    window, kernel = normal(6, 6).astype(np.float64), normal(3, 3).astype(np.float64)
    domain = (g @ kernel @ g.T) * (b_t @ window @ b_t.T)
    tile = a.T @ domain @ a
    for row, column in np.ndindex(4, 4):
        expected = (window[row : row + 3, column : column + 3] * kernel).sum()
        assert tile[row, column] == pytest.approx(expected, abs=1e-5)


def test_winograds_points_err_less_than_half_of_what_the_usual_ones_do(monkeypatch):
    windows, kernels = normal(64, 256, 6, 6), normal(256, 3, 3)
    views = np.lib.stride_tricks.sliding_window_view(windows.astype(np.float64), (3, 3), (2, 3))
    exact = np.einsum("ncyxij,cij->nyx", views, kernels)

    def error() -> float:
        """Root mean square, as a share of the values'."""
        b_t, g, a = matrices()
        domain = (b_t @ windows @ b_t.T) * (g @ kernels @ g.T)
        return np.std(a.T @ domain.sum(axis=1) @ a - exact) / np.std(exact)

    assert np.prod(POINTS[1:3]) * np.prod(POINTS[3:]) == pytest.approx(1)
    ours = error()
    monkeypatch.setattr(convolutions.winograd, "POINTS", (0, 1, -1, 2, -2))
    assert ours < 2e-6 and ours < error() / 2


class Network(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, MANY, 3, pad_mode="same")
        self.winograd = nn.Conv2d(MANY, MANY, 3, pad_mode="same")
        self.large = nn.Conv2d(MANY, MANY, 5, pad_mode="same")
        self.single = nn.Conv2d(MANY, 4, 1, pad_mode="valid")
        self.halving = nn.Conv2d(4, 4, 3, stride=2, pad_mode="pad", padding=1)

    def construct(self, x: Tensor) -> Tensor:
        x = self.large(ops.relu(self.winograd(ops.relu(self.first(x)))))
        return (self.halving(self.single(x)) ** 2).sum()


def kinds(network: nn.Cell) -> list[type]:
    return [type(cell.conv2d) for cell in network.cells()]


def test_only_convolutions_that_keep_the_size_change_and_no_name_of_a_parameter():
    network = Network()
    names = [parameter.name for parameter in network.get_parameters()]
    use_cpu_convolutions(network)
    use_cpu_convolutions(network)  # a second use changes nothing more
    single = TwoInputs if compiled_library() else ops.Conv2D
    changed = [FlippedKernelConv2d, WinogradConv2d, Im2colConv2d, single, ops.Conv2D]
    assert kinds(network) == changed
    assert [parameter.name for parameter in network.get_parameters()] == names


@pytest.mark.parametrize("options", [{"dilation": 2}, {"group": 2}])
@pytest.mark.parametrize("channels", [4, MANY])
def test_dilated_and_grouped_convolutions_stay(options, channels):
    network = nn.SequentialCell(nn.Conv2d(channels, channels, 3, pad_mode="same", **options))
    use_cpu_convolutions(network)
    assert kinds(network) == [ops.Conv2D]


def test_other_devices_keep_their_own_kernels(monkeypatch):
    monkeypatch.setattr(convolutions.ms, "get_context", {"device_target": "Ascend"}.get)
    network = Network()
    use_cpu_convolutions(network)
    assert kinds(network) == [ops.Conv2D] * 5


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O2", "O3", "auto"])
@pytest.mark.parametrize("mode", MODES, ids=["pynative", "graph"])
def test_mixed_precision_has_no_winograd_and_the_gradients_it_had(level, mode):
    ms.set_context(mode=mode)
    plain, network = Network(), Network()
    ms.load_param_into_net(network, plain.parameters_dict())
    plain, mixed = (ms.amp.auto_mixed_precision(n, level) for n in (plain, network))
    use_cpu_convolutions(network)
    assert WinogradConv2d not in kinds(network) and Im2colConv2d in kinds(network)
    images = Tensor(16 * normal(1, 3, 8, 8))  # far from where half precision ends

    def gradients(of: nn.Cell) -> list[np.ndarray]:
        parameters = ms.ParameterTuple(of.trainable_params())
        return [g.asnumpy() for g in ops.GradOperation(get_by_list=True)(of, parameters)(images)]

    for ours, theirs in zip(gradients(mixed), gradients(plain), strict=True):
        assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()


def test_precision_may_be_settled_after_a_segmenter_is_made(graph_mode):
    network = Network()
    Segmenter(network, IMAGENET_RGB)
    ms.amp.auto_mixed_precision(network, "auto")
    use_cpu_convolutions(network)
    assert WinogradConv2d not in kinds(network)


def test_a_network_gets_its_own_convolutions_back():
    network = Network()
    images = Tensor(normal(1, 3, 8, 8))
    before = network(images).asnumpy().tolist()
    use_cpu_convolutions(network)
    use_own_convolutions(network)
    assert kinds(network) == [ops.Conv2D] * 5
    assert network(images).asnumpy().tolist() == before
