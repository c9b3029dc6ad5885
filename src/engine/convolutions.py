"""Faster convolutions for the CPU: the same parameters and values, other sums."""

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter  # no public name

from src.engine.winograd import KERNEL, WinogradConv2d

# Of the input and the output. Below, moving data to and fro takes longer than Winograd saves
WINOGRAD_CHANNELS = 128

class _ByForwardKernel(nn.Cell):
    """Convolves as `conv2d` does; the gradient of the input is a convolution itself.

    For a convolution of stride 1 that keeps the size, it is the one with the kernel turned by 180
    degrees and its channels swapped. oneDNN's own kernel for it is up to twice as slow and keeps
    a copy of the unfolded image for each layer and thread.
    """

    def __init__(self, cell: nn.Conv2d) -> None:
        super().__init__(auto_prefix=False)
        kernel, channels = cell.kernel_size, (cell.in_channels, cell.out_channels)
        margins = tuple(k // 2 for k in kernel for _ in range(2))
        self.conv2d = ops.Conv2D(channels[1], kernel, 1, "pad", margins)
        self.turned = ops.Conv2D(channels[0], kernel, 1, "pad", margins)
        self.weight_gradient = Conv2DBackpropFilter(channels[1], kernel, "pad", margins, margins)
        self.taps = math.prod(kernel)
        self.last_first = Tensor(np.eye(self.taps, dtype=np.float32)[::-1].copy())
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.conv2d(x, weight)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        # Turned by a product, which takes a sixth of ReverseV2's time
        kernel = self.matmul(weight.reshape(-1, self.taps), self.last_first)
        # Under mixed precision the output may be of another type than what came in
        kernel = kernel.reshape(weight.shape).transpose(1, 0, 2, 3).astype(dout.dtype)
        of_weight = self.weight_gradient(dout, x.astype(dout.dtype), weight.shape)
        return self.turned(dout, kernel).astype(x.dtype), of_weight.astype(weight.dtype)


def use_cpu_convolutions(network: nn.Cell) -> None:
    """Gives the convolutions of a network that can have it a faster way to compute.

    Kernels of 3×3 between many channels become `WinogradConv2d`; others, such as those between few
    channels, keep oneDNN's way forward and get another gradient of their input. Elsewhere than on
    the CPU it does nothing.
    """
    if ms.get_context("device_target") != "CPU":
        return
    made: dict[tuple, nn.Cell] = {}  # each takes memory when compiled
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d) and _gains(cell):
            key = (cell.in_channels, cell.out_channels, cell.kernel_size)
            if key not in made:
                winograd = cell.kernel_size == (KERNEL, KERNEL) and min(key[:2]) >= WINOGRAD_CHANNELS
                made[key] = WinogradConv2d(*key[:2]) if winograd else _ByForwardKernel(cell)
            del cell.conv2d
            cell.conv2d = made[key]


def _gains(cell: nn.Conv2d) -> bool:
    """Of stride 1 and odd kernel, without groups or dilation, in float32, and keeping the size.

    A 1×1 convolution is a matrix product, forward and backward, and has nothing to unfold.
    """
    kernel = cell.kernel_size
    padded = cell.padding if isinstance(cell.padding, tuple) else (cell.padding,) * 4
    margins = tuple(k // 2 for k in kernel for _ in range(2))
    return (
        isinstance(cell.conv2d, ops.Primitive)
        and not any(cell.get_flags().get(kind) for kind in ("fp16", "bf16"))
        and set(cell.stride) == {1}
        and set(cell.dilation) == {1}
        and cell.group == 1
        and all(k % 2 == 1 for k in kernel)
        and math.prod(kernel) > 1
        and (cell.pad_mode == "same" or padded == margins)
    )
