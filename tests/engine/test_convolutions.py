"""Gradients by forward kernels: the same values, where the formula holds."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.engine import convolutions
from src.engine.convolutions import use_cpu_convolutions


class Four(nn.Cell):
    """Same padding, 5×5 with explicit padding and bias, 1×1, and one that halves the size."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 8, 3, pad_mode="same")
        self.padded = nn.Conv2d(8, 6, 5, pad_mode="pad", padding=2, has_bias=True)
        self.single = nn.Conv2d(6, 4, 1, pad_mode="valid")
        self.halving = nn.Conv2d(4, 4, 3, stride=2, pad_mode="pad", padding=1)

    def construct(self, x: Tensor) -> Tensor:
        x = ops.relu(self.padded(ops.relu(self.same(x))))
        return (self.halving(self.single(x)) ** 2).sum()


def gradients(network: nn.Cell, images: Tensor) -> list[np.ndarray]:
    parameters = ms.ParameterTuple(network.trainable_params())
    of = ops.GradOperation(get_all=True, get_by_list=True)(network, parameters)
    (of_input,), of_parameters = of(images)
    return [gradient.asnumpy() for gradient in (of_input, *of_parameters)]


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_values_and_all_gradients_stay_the_same(mode):
    ms.set_context(mode=mode)
    plain, network = Four(), Four()
    ms.load_param_into_net(network, plain.parameters_dict())
    use_cpu_convolutions(network)
    images = Tensor(np.random.default_rng(0).normal(size=(2, 3, 11, 13)).astype(np.float32))
    assert np.allclose(network(images).asnumpy(), plain(images).asnumpy(), rtol=1e-6)
    for ours, theirs in zip(gradients(network, images), gradients(plain, images), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_only_larger_kernels_that_keep_the_size_change_and_no_name_of_a_parameter():
    network = Four()
    names = [parameter.name for parameter in network.get_parameters()]
    use_cpu_convolutions(network)
    use_cpu_convolutions(network)  # a second training step over it changes nothing more
    changed = [not isinstance(cell.conv2d, ops.Primitive) for cell in network.cells()]
    assert changed == [True, True, False, False]
    assert [parameter.name for parameter in network.get_parameters()] == names


@pytest.mark.parametrize("options", [{"dilation": 2}, {"group": 2}])
def test_dilated_and_grouped_convolutions_stay(options):
    network = nn.SequentialCell(nn.Conv2d(4, 4, 3, pad_mode="same", **options))
    use_cpu_convolutions(network)
    assert isinstance(network[0].conv2d, ops.Primitive)


def test_other_devices_keep_their_own_kernels(monkeypatch):
    monkeypatch.setattr(convolutions.ms, "get_context", {"device_target": "Ascend"}.get)
    network = Four()
    use_cpu_convolutions(network)
    assert isinstance(network.same.conv2d, ops.Primitive)


@pytest.mark.parametrize("level", ["O2", "O3", "auto"])
def test_mixed_precision_trains(level):
    ms.set_context(mode=ms.GRAPH_MODE)
    network = ms.amp.auto_mixed_precision(Four(), level)
    use_cpu_convolutions(network)
    images = Tensor(np.ones((1, 3, 8, 8), np.float32))
    assert all(np.isfinite(gradient).all() for gradient in gradients(network, images))
