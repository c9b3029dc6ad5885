"""Dropout whose masks are a function of seed, layer and draw, so that a resumed run repeats them.

MindSpore's dropout keeps a random generator inside its kernel, where it can be neither read nor
set, so a run that is resumed would draw other masks. Here the state is one number a layer.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def _int32(value: int) -> Tensor:
    return Tensor(np.array(value % 2**32, np.uint32).view(np.int32))


_ONE = _int32(1)
_SIXTEEN = _int32(16)
_LOW_HALF = _int32(0xFFFF)
_NUMBERS_A_DRAW = 12  # by which MindSpore's own layer advances its generator
_FACTOR_1 = _int32(0x7FEB352D)
_FACTOR_2 = _int32(0x846CA68B)


def _folded(bits: Tensor) -> Tensor:
    """The upper half of 32-bit numbers, xored into the lower one."""
    upper = ops.bitwise_and(ops.bitwise_right_shift(bits, _SIXTEEN), _LOW_HALF)  # no sign bits
    return ops.bitwise_xor(bits, upper)


def _mixed(bits: Tensor) -> Tensor:
    """A bijection of int32 numbers that makes neighbours look unrelated."""
    return _folded(_folded(_folded(bits) * _FACTOR_1) * _FACTOR_2)


def _hashes(count: int, key: Tensor) -> Tensor:
    """A number for each position from 0, another with each key."""
    return _mixed(ops.bitwise_xor(ops.arange(count).astype(ms.int32), key))


class RepeatableDropout(nn.Cell):
    """Sets a share `p` of the values to zero in training and divides the others by 1 - p.

    Which values are dropped depends on a hash of the position, the layer's salt and the number of
    earlier draws. It uses integer arithmetic only, so that all devices agree.

    Args:
        p: Share that is dropped, 0 to below 1.
        salt: Differs from layer to layer and from seed to seed.
        name: Of the parameter that counts the draws.
    """

    def __init__(self, p: float, salt: int, name: str) -> None:
        super().__init__()
        self.p = p
        self.scale = 1 / (1 - p)
        self.lowest_kept = _int32(int(p * 2**32) - 2**31)
        self.salt = _int32(int(np.random.default_rng(salt).integers(2**32)))
        self.drawn = Parameter(Tensor(0, ms.int32), name=name, requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        ops.assign_add(self.drawn, _ONE)
        key = _mixed(ops.bitwise_xor(self.drawn, self.salt))
        # Rows and columns are hashed separately, which leaves half a round for each value
        rows, columns = math.prod(x.shape[:2]), math.prod(x.shape[2:])
        bits = ops.bitwise_xor(
            _hashes(rows, key).reshape(rows, 1),
            _hashes(columns, key * _FACTOR_2).reshape(1, columns),
        )
        bits = _folded(bits * _FACTOR_1) * _FACTOR_2
        kept = (bits >= self.lowest_kept).reshape(x.shape)
        return x * kept.astype(x.dtype) * self.scale


class AscendDropout(RepeatableDropout):
    """The same by one kernel of Ascend's, which draws from a seed and an offset that it is given.

    MindSpore's own layer takes both from a generator whose seed, in graph mode, differs from
    process to process, whatever was set. The hash above would be ten kernel launches, some of them
    on the card's own CPU.
    """

    def __init__(self, p: float, salt: int, name: str) -> None:
        super().__init__(p, salt, name)
        from mindspore.ops.auto_generate import func_dropout_ext_op

        self.dropout = func_dropout_ext_op
        self.seed = Tensor(salt, ms.int64)

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        offset = ops.assign_add(self.drawn, _ONE).astype(ms.int64) * _NUMBERS_A_DRAW
        return self.dropout(x, self.p, True, False, self.seed, offset)


def make_dropout_repeatable(network: nn.Cell, seed: int) -> None:
    """Replaces each `nn.Dropout` of a network, those of mindcv's `DropPath` too.

    Other random cells (`nn.Dropout2d`, `ops.dropout`) stay as they are: after a resume their
    masks differ from those of the uninterrupted run.
    """
    on_ascend = ms.get_context("device_target") == "Ascend"
    kind = AscendDropout if on_ascend else RepeatableDropout
    found = [
        (path, cell, name, child)
        for path, cell in network.cells_and_names()
        for name, child in cell.name_cells().items()
        if isinstance(child, nn.Dropout) and child.p
    ]
    for number, (path, cell, name, child) in enumerate(found, 1):
        counter = ".".join(filter(None, (path, name, "drawn")))
        dropout = kind(child.p, seed * 1000 + number, counter)
        dropout.set_train(child.training)
        if isinstance(cell, nn.SequentialCell):
            cell[int(name)] = dropout
        else:
            setattr(cell, name, dropout)
        dropout.drawn.name = counter  # the cell has put its own name before it


def draw_counters(network: nn.Cell) -> set[str]:
    """Names of the parameters that count draws; they belong to a run, not to its weights."""
    cells = (cell for _, cell in network.cells_and_names())
    return {cell.drawn.name for cell in cells if isinstance(cell, RepeatableDropout)}
