"""The residual backbone with a way back up."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models.backbones.pyramid import Pyramid
from src.models.fcn import FCN
from src.utils.errors import UserError


def small_pyramid(**options):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    options = {"channels": (6, 8, 10), "blocks": (2, 1, 1), "stem_channels": (4, 4), **options}
    return Pyramid(**options).set_train(False)


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_features_lie_at_strides_8_16_and_32_with_sizes_rounded_up(size):
    backbone = small_pyramid()
    images = Tensor(np.zeros((1, 3, *size), np.float32))
    shapes = [features.shape for features in backbone(images)]
    assert shapes == [
        (1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in ((6, 8), (8, 16), (10, 32))
    ]
    assert FCN(backbone, 3)(images).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_a_network_that_predicts_at_stride_4_gets_one_more_map(size):
    backbone = small_pyramid(detail_channels=5)
    images = Tensor(np.zeros((1, 3, *size), np.float32))
    shapes = [features.shape for features in backbone(images)]
    assert shapes == [
        (1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in ((5, 4), (6, 8), (8, 16), (10, 32))
    ]
    assert FCN(backbone, 3, stride=4)(images).shape == (1, 3, *size)


def test_a_block_starts_as_its_shortcut():
    block = small_pyramid().stage8[1]  # the second of the stage: its shortcut is the input
    x = np.array([-1, 2, 0.5, 3, -4, 1], np.float32).reshape(1, 6, 1, 1)
    assert np.array_equal(block(Tensor(x)).asnumpy(), np.maximum(x, 0))


def test_the_finest_map_knows_what_lies_at_the_far_end_of_the_coarsest():
    backbone = small_pyramid()
    for param in backbone.trainable_params():
        if param.name.endswith("gamma"):
            param.set_data(Tensor(np.ones(param.shape, np.float32)))  # as if it were trained
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    before = backbone(Tensor(images))[0].asnumpy()
    images[:, :, :, -32:] += 5
    after = backbone(Tensor(images))[0].asnumpy()
    assert not np.array_equal(before[..., 0], after[..., 0])


def test_the_number_of_parameters_by_hand():
    def conv(i, o, k=3):
        return k * k * i * o + 2 * o  # with the norm's scale and shift

    stem = conv(3, 4) + conv(4, 4)
    stages = conv(4, 6) + conv(4, 6, 1) + 3 * conv(6, 6)  # two blocks, the first with a projection
    stages += conv(6, 8) + conv(6, 8, 1) + conv(8, 8) + conv(8, 10) + conv(8, 10, 1) + conv(10, 10)
    merges = 4 * 10 * 8 + conv(8, 8) + 4 * 8 * 6 + conv(6, 6)
    detail = conv(4, 5, 1) + 4 * 6 * 5 + conv(5, 5)
    for options, number in (({}, 0), ({"detail_channels": 5}, detail)):
        found = sum(p.size for p in small_pyramid(**options).trainable_params())
        assert found == stem + stages + merges + number


def test_a_wrong_number_of_stages_is_refused():
    with pytest.raises(UserError, match=r"model\.backbone\.blocks=\[2, 2\]: expected 3"):
        Pyramid(blocks=(2, 2))
