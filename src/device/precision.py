"""The number format that a network computes in."""

import mindspore as ms
from mindspore import nn

DTYPES = {"float16": ms.float16, "bfloat16": ms.bfloat16}


def set_precision(network: nn.Cell, level: str, dtype: str = "float16") -> None:
    """Applies MindSpore's mixed precision; `nn.SyncBatchNorm` computes in float32 at each level.

    MindSpore makes that exception for the other norms only: in half precision, `nn.SyncBatchNorm`
    would get cast copies of its running statistics and update those.

    Args:
        network: Changed in place.
        level: "O0" (float32) to "O3", or "auto".
        dtype: "float16", or "bfloat16": of float32's range, so that no loss scaling is needed.
    """
    ms.amp.auto_mixed_precision(network, level, DTYPES[dtype])
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.SyncBatchNorm):
            cell.to_float(ms.float32)
