"""Convolutions of large kernels as one matrix product."""

import math

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.device.cpu_convolutions.permutation import PermuteRows


class Im2colConv2d(nn.Cell):
    """Convolves N×C×H×W maps with an O×C×k×l kernel, k and l odd, at stride 1, keeping the size.

    The kernel is multiplied by the im2col matrix of the whole batch. oneDNN multiplies image by
    image, which takes up to five times as long for the small maps of VGG's conv6, and computes
    conv6's weight gradient by a reference kernel: with im2col a training step of FCN-8s takes a
    tenth of the time. The im2col matrix takes k·l times the memory of the maps.

    Args:
        kernel_size: (k, l).
    """

    def __init__(self, kernel_size: tuple[int, int]) -> None:
        super().__init__(auto_prefix=False)
        self.kernel_size = kernel_size
        self.margin = tuple(k // 2 for k in kernel_size)
        self.product = ops.MatMul()
        self.product_of_weight = ops.MatMul(transpose_b=True)
        self.product_of_input = ops.MatMul(transpose_a=True)
        self.permute = PermuteRows()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        n, _, height, width = x.shape
        channels = weight.shape[0]
        kernels = weight.reshape(channels, -1).astype(x.dtype)
        pixels = self.product(kernels, self._windows(x))
        pixels = self.permute(pixels, (channels, n), (1, 0))
        return pixels.reshape(n, channels, height, width)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        n, in_channels, height, width = x.shape
        channels = weight.shape[0]
        # Under mixed precision the output may have another type than the input
        pixels = self.permute(dout.astype(x.dtype), (n, channels), (1, 0))
        pixels = pixels.reshape(channels, -1)
        of_weight = self.product_of_weight(pixels, self._windows(x))
        kernels = weight.reshape(channels, -1).astype(x.dtype)
        of_windows = self.product_of_input(kernels, pixels)
        window_size = in_channels * math.prod(self.kernel_size)
        of_windows = self.permute(of_windows, (window_size, n), (1, 0)).reshape(n, window_size, -1)
        size = Tensor((height, width), ms.int32)
        of_x = ops.fold(of_windows, size, self.kernel_size, 1, self.margin, 1)
        return of_x, of_weight.reshape(weight.shape).astype(weight.dtype)

    def _windows(self, x: Tensor) -> Tensor:
        """The im2col matrix, (C·k·l)×(N·H·W)."""
        n, channels = x.shape[:2]
        window_size = channels * math.prod(self.kernel_size)
        windows = ops.unfold(x, self.kernel_size, 1, self.margin, 1)  # N×(C·k·l)×(H·W)
        return self.permute(windows, (n, window_size), (1, 0)).reshape(window_size, -1)
