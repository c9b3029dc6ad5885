"""Layers that MindSpore lacks: bilinear upsampling, and large convolutions fit for the CPU."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal
from mindspore.ops import functional as F

from src.utils.errors import UserError

FORMULATIONS = ("auto", "conv", "matmul")


def bilinear_kernel(factor: int) -> np.ndarray:
    """The 2f×2f float32 kernel of bilinear interpolation by a transposed convolution of stride f.

    As in the FCN paper (and Caffe's "bilinear" filler): a tent in each direction, f taps to either
    side of the centre.
    """
    centre = factor - 0.5
    tent = 1 - np.abs(np.arange(2 * factor) - centre) / factor
    return np.outer(tent, tent).astype(np.float32)


class BilinearUpsample(nn.Conv2dTranspose):
    """Enlarges N×C×H×W maps to N×C×fH×fW; starts as bilinear interpolation.

    The kernel is dense, C×C×2f×2f, as in the paper: interpolation is its diagonal, and training may
    mix classes. At the map's border, where the kernel reaches outside, values fade towards zero.

    Args:
        channels: C, here the number of classes.
        factor: f, even.
        frozen: Keeps the interpolation as it is.
    """

    def __init__(self, channels: int, factor: int, frozen: bool = False) -> None:
        weight = np.zeros((channels, channels, 2 * factor, 2 * factor), np.float32)
        weight[np.arange(channels), np.arange(channels)] = bilinear_kernel(factor)
        super().__init__(
            channels,
            channels,
            2 * factor,
            stride=factor,
            pad_mode="pad",
            padding=factor // 2,
            has_bias=False,
            weight_init=Tensor(weight),
        )
        self.weight.requires_grad = not frozen


def large_conv_formulation(wanted: str = "auto") -> str:
    """How a `LargeConv2d` computes on the present device: "conv" or "matmul".

    oneDNN computes the weight gradient of a 7×7 convolution by a reference kernel: on the CPU the
    matrix product makes a training step of FCN-8s with VGG-16 about ten times faster.

    Raises:
        UserError: `wanted` is none of auto, conv, matmul.
    """
    if wanted not in FORMULATIONS:
        raise UserError(f"formulation={wanted!r}: expected one of {', '.join(FORMULATIONS)}")
    if wanted != "auto":
        return wanted
    return "matmul" if ms.get_context("device_target") == "CPU" else "conv"


class LargeConv2d(nn.Conv2d):
    """A stride-1 convolution of odd kernel and same padding, for large kernels over many channels.

    Parameters have the shapes of `nn.Conv2d`, and both formulations give the same values.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel, odd.
        has_bias: Whether a bias is added.
        formulation: "conv", "matmul" (unfold and one matrix product over all pixels of the batch),
            or "auto": what suits the device. Export wants "conv".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        has_bias: bool = False,
        formulation: str = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            pad_mode="pad",
            padding=kernel_size // 2,
            has_bias=has_bias,
            weight_init=HeNormal(nonlinearity="relu"),
            bias_init="zeros",
        )
        self.formulation = large_conv_formulation(formulation)
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        if self.formulation == "matmul":
            n, _, h, w = x.shape
            kernel = self.kernel_size[0]
            columns = ops.unfold(x, kernel, 1, self.padding, 1)  # N×(C·k·k)×(H·W)
            columns = columns.transpose(0, 2, 1).reshape(-1, self.in_channels * kernel * kernel)
            weight = self.weight.reshape(self.out_channels, -1)
            # One product for the batch: a product per image takes five times as long
            pixels = self.matmul(columns, weight)  # (N·H·W)×C_out
            output = pixels.reshape(n, h, w, self.out_channels).transpose(0, 3, 1, 2)
        else:
            output = self.conv2d(x, self.weight)
        if self.has_bias:
            output = self.bias_add(output, self.bias)
        return output


def conv_norm_relu(convolution: nn.Conv2d, batch_norm: bool) -> list[nn.Cell]:
    """The convolution, batch normalisation of its channels if wanted, and ReLU."""
    norm = [nn.BatchNorm2d(convolution.out_channels)] if batch_norm else []
    return [convolution, *norm, nn.ReLU()]


def cut(maps: Tensor, like: Tensor) -> Tensor:
    """The top left part of `maps`, of the height and width of `like`."""
    height, width = like.shape[2], like.shape[3]
    # Where nothing is cut, MindSpore would copy: up to a tenth of a training step on the CPU
    if F.isconstant(height) and F.isconstant(width) and maps.shape[2:] == (height, width):
        return maps
    return ops.Slice()(maps, (0, 0, 0, 0), (*maps.shape[:2], height, width))
