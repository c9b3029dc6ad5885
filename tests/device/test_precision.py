"""Mixed precision: the cells that compute in half precision, and those that do not."""

import mindspore as ms
import pytest
from mindspore import nn

from src.device.precision import set_precision


@pytest.mark.parametrize(("dtype", "flag"), [("float16", "fp16"), ("bfloat16", "bf16")])
def test_convolutions_take_the_format_and_norms_stay_in_float32(dtype, flag):
    network = nn.SequentialCell(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    set_precision(network, "O2", dtype)
    flags = {type(cell): cell.get_flags() for _, cell in network.cells_and_names()}
    assert flags[nn.Conv2d].get(flag) and not flags[nn.BatchNorm2d].get(flag)
    assert all(p.dtype == ms.float32 for p in network.get_parameters())
