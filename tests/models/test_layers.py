import numpy as np
import pytest
from mindspore import Tensor, nn

from src.models.layers import BilinearUpsample, bilinear_kernel, conv_norm_relu


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


def test_block_has_a_norm_only_if_wanted():
    def kinds(batch_norm: bool) -> list[type]:
        return [type(cell) for cell in conv_norm_relu(nn.Conv2d(3, 4, 3), batch_norm)]

    assert kinds(True) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds(False) == [nn.Conv2d, nn.ReLU]
