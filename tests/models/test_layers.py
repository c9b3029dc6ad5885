import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.models import layers
from src.models.layers import (
    BilinearUpsample,
    LargeConv2d,
    bilinear_kernel,
    conv_norm_relu,
    large_conv_formulation,
)
from src.utils.errors import UserError


def normal(*shape: int) -> Tensor:
    return Tensor(np.random.randn(*shape).astype(np.float32))


def test_kernel_of_factor_2_is_a_tent_of_quarters():
    expected = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
    assert bilinear_kernel(2).tolist() == expected.tolist()


def test_kernel_of_factor_4_is_a_tent_of_eighths():
    tent = [1, 3, 5, 7, 7, 5, 3, 1]
    assert bilinear_kernel(4).tolist() == (np.outer(tent, tent) / 64).tolist()


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_multiplies_the_size_and_keeps_a_constant_inside(factor):
    enlarged = BilinearUpsample(2, factor)(Tensor(np.full((1, 2, 3, 4), 5, np.float32))).asnumpy()
    assert enlarged.shape == (1, 2, 3 * factor, 4 * factor)
    border = factor // 2
    assert np.allclose(enlarged[:, :, border:-border, border:-border], 5)
    assert enlarged[0, 0, 0, 0] < 5  # the kernel reaches outside the map there


def test_upsampling_by_2_interpolates_a_ramp_at_pixel_centres():
    ramp = np.tile(np.arange(4, dtype=np.float32), (1, 1, 3, 1))
    row = BilinearUpsample(1, 2)(Tensor(ramp)).asnumpy()[0, 0, 2]
    assert row[1:-1].tolist() == [0.25, 0.75, 1.25, 1.75, 2.25, 2.75]


def test_upsampling_starts_without_mixing_classes():
    maps = np.zeros((1, 3, 2, 2), np.float32)
    maps[:, 1] = 1
    enlarged = BilinearUpsample(3, 2)(Tensor(maps)).asnumpy()
    assert enlarged[:, [0, 2]].max() == 0
    assert enlarged[:, 1].min() == 0.75 * 0.75


def test_frozen_upsampling_is_not_trained():
    assert BilinearUpsample(3, 2, frozen=True).trainable_params() == []
    assert len(BilinearUpsample(3, 2).trainable_params()) == 1


def pair_of_convolutions(has_bias: bool) -> tuple[LargeConv2d, LargeConv2d]:
    matmul = LargeConv2d(6, 5, 7, has_bias, formulation="matmul")
    conv = LargeConv2d(6, 5, 7, has_bias, formulation="conv")
    for ours, theirs in zip(matmul.get_parameters(), conv.get_parameters(), strict=True):
        ours.set_data(normal(*ours.shape))
        theirs.set_data(ours)
    return matmul, conv


def largest_difference(left: Tensor, right: Tensor) -> float:
    left, right = left.asnumpy(), right.asnumpy()
    return np.abs(left - right).max() / np.abs(right).max()


class WeightedSum(nn.Cell):
    def __init__(self, layer: nn.Cell, factors: Tensor) -> None:
        super().__init__()
        self.layer, self.factors = layer, factors

    def construct(self, images: Tensor) -> Tensor:
        return (self.layer(images) * self.factors).sum()


def output_and_gradients(layer: LargeConv2d, images: Tensor, factors: Tensor) -> list[Tensor]:
    loss = WeightedSum(layer, factors)
    gradient = ops.GradOperation(get_all=True, get_by_list=True)
    parameters = ms.ParameterTuple(layer.trainable_params())
    (input_gradient,), parameter_gradients = gradient(loss, parameters)(images)
    return [layer(images), input_gradient, *parameter_gradients]


def check_equal_formulations(has_bias: bool, shape: tuple[int, ...]) -> None:
    matmul, conv = pair_of_convolutions(has_bias)
    images, factors = normal(*shape), normal(shape[0], 5, *shape[2:])
    ours = output_and_gradients(matmul, images, factors)
    theirs = output_and_gradients(conv, images, factors)
    assert len(ours) == 3 + has_bias
    for left, right in zip(ours, theirs, strict=True):
        assert left.shape == right.shape
        assert largest_difference(left, right) < 1e-5


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 5, 9), (1, 6, 1, 1), (3, 6, 8, 8)])
def test_both_formulations_agree_in_values_and_gradients(has_bias, shape):
    check_equal_formulations(has_bias, shape)


def test_both_formulations_agree_in_graph_mode(graph_mode):
    check_equal_formulations(True, (2, 6, 5, 9))


def test_matmul_formulation_runs_all_sizes_on_one_dynamic_graph(graph_mode):
    matmul, conv = pair_of_convolutions(has_bias=True)
    matmul.set_inputs(Tensor(shape=[None, 6, None, None], dtype=ms.float32))
    for shape in [(1, 6, 4, 5), (2, 6, 7, 7), (1, 6, 1, 9)]:
        images = normal(*shape)
        assert largest_difference(matmul(images), conv(images)) < 1e-5


def test_formulation_follows_the_device_unless_it_is_given(monkeypatch):
    assert large_conv_formulation() == "matmul"
    monkeypatch.setattr(layers.ms, "get_context", {"device_target": "Ascend"}.get)
    assert large_conv_formulation() == "conv"
    assert large_conv_formulation("matmul") == "matmul"


def test_unknown_formulation_is_refused():
    with pytest.raises(UserError, match="'fft'.*auto, conv, matmul"):
        LargeConv2d(3, 3, 7, formulation="fft")


def test_block_has_a_norm_only_if_wanted():
    def kinds(batch_norm: bool) -> list[type]:
        return [type(cell) for cell in conv_norm_relu(nn.Conv2d(3, 4, 3), batch_norm)]

    assert kinds(True) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds(False) == [nn.Conv2d, nn.ReLU]
