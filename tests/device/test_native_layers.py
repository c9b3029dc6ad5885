"""Layers on kernels of our own: MindSpore's values and gradients, and its layers without them."""

import logging
import shutil

import mindspore as ms
import numpy as np
import pytest
from mindcv.models.convnext import Block, ConvNextLayerNorm
from mindcv.models.layers.activation import Swish
from mindcv.models.layers.squeeze_excite import SqueezeExcite
from mindspore import Tensor, nn
from mindspore.common.initializer import Normal

from src.device.cpu_convolutions import native, use_cpu_convolutions, use_own_convolutions
from src.device.cpu_convolutions.native import compilation as kernels
from tests.device.gradients import normal, values_and_gradients

pytestmark = pytest.mark.skipif(kernels.compiled_library() is None, reason="no C++ compiler")

MODES = [ms.PYNATIVE_MODE, ms.GRAPH_MODE]
CHANNELS = 6


@pytest.fixture(autouse=True)
def pynative():
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


def depthwise(kernel: int, stride: int = 1, same: bool = False, bias: bool = False) -> nn.Cell:
    margins = {} if same else {"padding": kernel // 2}
    return nn.Conv2d(
        CHANNELS, CHANNELS, kernel, stride, "same" if same else "pad", group=CHANNELS,
        has_bias=bias, weight_init=Normal(0.5), **margins,
    )  # fmt: skip


def pointwise(bias: bool) -> nn.Cell:
    return nn.Conv2d(CHANNELS, 17, 1, pad_mode="valid", has_bias=bias, weight_init=Normal(0.5))


def frozen_norm() -> nn.Cell:
    return nn.BatchNorm2d(CHANNELS, use_batch_statistics=False)


class OverLastAxis(nn.Cell):
    """A layer on the rows of channels of N×C×H×W maps."""

    def __init__(self, layer: nn.Cell) -> None:
        super().__init__()
        self.layers = nn.SequentialCell(layer)

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(0, 2, 3, 1))


def upsampling(factor: int) -> nn.Cell:
    return nn.Conv2dTranspose(
        CHANNELS, 4, 2 * factor, factor, "pad", factor // 2, weight_init=Normal(0.5)
    )


LAYERS = {
    "upsampling4": lambda: upsampling(4),
    "upsampling8": lambda: upsampling(8),
    "depthwise3": lambda: depthwise(3, bias=True),
    "depthwise5": lambda: depthwise(5),
    "depthwise7_same": lambda: depthwise(7, same=True),
    "depthwise3_halving": lambda: depthwise(3, stride=2),
    "depthwise5_halving_same": lambda: depthwise(5, stride=2, same=True),
    "depthwise7_halving": lambda: depthwise(7, stride=2),
    "pointwise": lambda: pointwise(bias=True),
    "batch_norm": lambda: nn.BatchNorm2d(CHANNELS),
    "frozen_norm": frozen_norm,
    "norm_relu": lambda: nn.SequentialCell(nn.BatchNorm2d(CHANNELS), nn.ReLU()),
    "norm_hard_swish": lambda: nn.SequentialCell(nn.BatchNorm2d(CHANNELS), nn.HSwish()),
    "norm_swish": lambda: nn.SequentialCell(nn.BatchNorm2d(CHANNELS), Swish()),
    "frozen_norm_swish": lambda: nn.SequentialCell(frozen_norm(), Swish()),
    "swish": Swish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "layer_norm": lambda: OverLastAxis(nn.LayerNorm((CHANNELS,))),
    "dense": lambda: OverLastAxis(nn.Dense(CHANNELS, 5)),
    "squeeze_excite": lambda: SqueezeExcite(CHANNELS, rd_channels=2),
    "maps_norm": lambda: ConvNextLayerNorm((CHANNELS,), 1e-6, norm_axis=1),
    "convnext_block": lambda: Block(CHANNELS, layer_scale_init_value=0.5),
}


def plain_and_native(name: str) -> tuple[nn.Cell, nn.Cell]:
    """Two layers of the same weights, one of them changed."""
    plain, changed = (nn.SequentialCell(LAYERS[name]()) for _ in range(2))
    for parameter in plain.trainable_params():
        parameter.set_data(Tensor(1 + 0.5 * normal(*parameter.shape)))
    ms.load_param_into_net(changed, plain.parameters_dict())
    use_cpu_convolutions(changed)
    assert native_kinds(changed)
    for network in (plain, changed):
        network.set_train()
    return plain, changed


def native_kinds(network: nn.Cell) -> set[str]:
    return {
        type(cell).__name__
        for _, cell in network.cells_and_names()
        if type(cell).__module__ == native.layers.__name__
    }


def all_values(layer: nn.Cell, images: np.ndarray) -> dict[str, np.ndarray]:
    """The output, all gradients, and the running statistics after both."""
    found = values_and_gradients(layer, images)
    running = [p for p in layer.get_parameters() if "moving" in p.name]
    return found | {p.name: p.asnumpy() for p in running}


def assert_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max() + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=["pynative", "graph"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(2, 11, 20), (3, 5, 2)])
def test_values_gradients_and_statistics_are_mindspores_own(name, size, mode):
    ms.set_context(mode=mode)
    batch, height, width = size
    images = 0.5 + normal(batch, CHANNELS, height, width)
    ours, theirs = (all_values(layer, images) for layer in reversed(plain_and_native(name)))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert_equal(ours[key], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_one_dynamic_graph_runs_all_sizes(name):
    ms.set_context(mode=ms.GRAPH_MODE)
    plain, changed = (network.set_train(False) for network in plain_and_native(name))
    changed.set_inputs(Tensor(shape=[None, CHANNELS, None, None], dtype=ms.float32))
    for batch, height, width in [(1, 9, 16), (2, 4, 5), (1, 1, 1)]:
        images = Tensor(normal(batch, CHANNELS, height, width))
        assert_equal(changed(images).asnumpy(), plain(images).asnumpy())


@pytest.mark.slow
def test_pixels_and_channels_of_any_number_make_whole_products():
    for channels_in, channels_out, pixels in [(1, 1, 1), (7, 13, 35), (400, 30, 17), (30, 5, 600)]:
        plain, changed = (
            nn.Conv2d(channels_in, channels_out, 1, weight_init=Normal(1)) for _ in range(2)
        )
        ms.load_param_into_net(changed, plain.parameters_dict())
        use_cpu_convolutions(changed)
        images = normal(2, channels_in, 1, pixels)
        ours, theirs = all_values(changed, images), all_values(plain, images)
        for key, value in theirs.items():
            assert_equal(ours[key], value)


@pytest.mark.slow
def test_gradients_are_the_same_to_the_bit_each_time():
    layer = nn.Conv2d(64, 96, 1, weight_init=Normal(1))
    use_cpu_convolutions(layer)
    images = normal(8, 64, 64, 64)
    first = all_values(layer, images)
    for _ in range(5):
        again = all_values(layer, images)
        assert all(np.array_equal(again[key], value) for key, value in first.items())


def test_activations_reach_their_limits_and_keep_nan():
    x = np.array([-1e30, -100, -20, 0, 20, 100, 1e30, np.nan], np.float32)
    for layer in (Swish(), nn.GELU()):
        changed = nn.SequentialCell(layer)
        use_cpu_convolutions(changed)
        values = changed(Tensor(x)).asnumpy()
        assert np.isnan(values[-1])
        assert values[2:7] == pytest.approx([0, 0, 20, 100, 1e30], rel=1e-6, abs=1e-6)
        assert np.abs(values[:2]).max() < 1e-6


def test_an_upsampling_to_twice_the_size_or_of_other_margins_stays():
    others = [upsampling(2), nn.Conv2dTranspose(CHANNELS, 4, 8, 4, "same")]
    network = nn.SequentialCell(*others, nn.Conv2dTranspose(CHANNELS, 4, 5, 4, "pad", 2))
    use_cpu_convolutions(network)
    assert not native_kinds(network)


def test_a_dilated_grouped_or_uneven_convolution_stays():
    for options in ({"dilation": 2}, {"kernel_size": 9}, {"stride": 3}, {"kernel_size": (3, 5)}):
        given = {"kernel_size": 3, "pad_mode": "same", "group": 4, **options}
        network = nn.SequentialCell(nn.Conv2d(4, 4, **given))
        use_cpu_convolutions(network)
        assert not native_kinds(network)


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_mixed_precision_keeps_mindspores_layers(level):
    network = nn.SequentialCell(depthwise(3), nn.BatchNorm2d(CHANNELS), nn.GELU())
    use_cpu_convolutions(ms.amp.auto_mixed_precision(network, level))
    assert not native_kinds(network)


def test_a_network_gets_its_own_layers_back():
    layers = [depthwise(3), SqueezeExcite(CHANNELS), Block(CHANNELS), Swish(), pointwise(True)]
    network = nn.SequentialCell(*layers)
    names = [parameter.name for parameter in network.get_parameters()]
    kinds = [type(cell) for _, cell in network.cells_and_names()]
    use_cpu_convolutions(network)
    use_cpu_convolutions(network)  # a second use changes nothing more
    assert len(native_kinds(network)) > 3
    assert [parameter.name for parameter in network.get_parameters()] == names
    use_own_convolutions(network)
    assert [type(cell) for _, cell in network.cells_and_names()] == kinds
    assert list(network.cell_list) == layers


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    """As in a process that has compiled nothing, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.compiled_library.cache_clear()
    yield tmp_path / "fcn-mindspore"
    kernels.compiled_library.cache_clear()


def test_without_a_compiler_the_network_stays_and_the_log_says_so(
    fresh_library, monkeypatch, caplog
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    caplog.set_level(logging.INFO)
    network = nn.SequentialCell(depthwise(3), Swish())
    use_cpu_convolutions(network)
    assert not native_kinds(network) and "compiler" in caplog.text
    assert network(Tensor(normal(1, CHANNELS, 4, 4))).shape == (1, CHANNELS, 4, 4)


def test_a_compiler_that_fails_is_told_of_and_the_network_stays(
    fresh_library, monkeypatch, tmp_path, caplog
):
    broken = tmp_path / "broken.cpp"
    broken.write_text("not C++\n")
    monkeypatch.setattr(kernels, "SOURCE", broken)
    network = nn.SequentialCell(depthwise(3))
    use_cpu_convolutions(network)
    assert not native_kinds(network)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "broken.cpp" in record.message
    assert list(fresh_library.iterdir()) == []


def test_the_compilers_variable_may_hold_arguments(fresh_library, monkeypatch, tmp_path):
    source, wrapper = tmp_path / "small.cpp", tmp_path / "wrapper"
    source.write_text('extern "C" void set_num_threads(int) { static_assert(WANTED == 1); }\n')
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')  # as ccache is one
    wrapper.chmod(0o755)
    monkeypatch.setattr(kernels, "SOURCE", source)
    monkeypatch.setenv("CXX", f"'{wrapper}' g++ -DWANTED=1")
    assert kernels.compiled_library() is not None


@pytest.mark.parametrize("given", ["no-such-compiler -O2", "'g++", " "])
def test_a_compiler_that_is_not_there_is_told_of(fresh_library, monkeypatch, caplog, given):
    find = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "clang++" else find(name))
    monkeypatch.setenv("CXX", given)
    caplog.set_level(logging.INFO)
    assert kernels.compiled_library() is None
    assert f"no C++ compiler ({given})" in caplog.text


def test_a_changed_source_is_compiled_anew_and_an_unchanged_one_is_not(
    fresh_library, monkeypatch, tmp_path
):
    source = tmp_path / "small.cpp"
    monkeypatch.setattr(kernels, "SOURCE", source)
    made = []
    for text in ("a", "a", "b"):
        source.write_text(f'extern "C" void set_num_threads(int) {{}}  // {text}\n')
        kernels.compiled_library.cache_clear()
        path = kernels.compiled_library()
        made.append((path, path.stat().st_mtime_ns))
    assert made[0] == made[1] and made[2][0] != made[0][0]
    assert sorted(fresh_library.iterdir()) == sorted({path for path, _ in made})
