"""Layers that MindSpore lacks, and what backbones share."""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import functional as F


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
    # Where sizes are known at run time only, [:, :, :h, :w] would take fifty times as long
    return ops.Slice()(maps, (0, 0, 0, 0), (*maps.shape[:2], height, width))
