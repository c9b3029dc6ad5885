"""The small strided backbone."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models.backbones.compact import Compact
from src.models.fcn import FCN
from src.utils.errors import UserError


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_features_lie_at_strides_8_16_and_32_with_sizes_rounded_up(size):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    backbone = Compact((4, 4, 6, 8, 10)).set_train(False)
    images = Tensor(np.zeros((1, 3, *size), np.float32))
    shapes = [features.shape for features in backbone(images)]
    assert shapes == [
        (1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in ((6, 8), (8, 16), (10, 32))
    ]
    assert FCN(backbone, 3)(images).shape == (1, 3, *size)


def test_the_number_of_parameters_by_hand():
    pairs = [(3, 24), (24, 48), (48, 48), (48, 96), (96, 96), (96, 96), (96, 128), (128, 128),
             (128, 128), (128, 192), (192, 192)]  # fmt: skip
    expected = sum(9 * i * o + 2 * o for i, o in pairs)
    assert sum(p.size for p in Compact().trainable_params()) == expected


def test_five_stages_are_asked_for():
    with pytest.raises(UserError, match="expected five numbers"):
        Compact((8, 16))
