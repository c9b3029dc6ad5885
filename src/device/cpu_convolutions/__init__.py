"""Faster convolutions for the CPU, with the same parameters and, up to rounding, values."""

import math

import mindspore as ms
from mindspore import nn, ops

from src.device.cpu_convolutions.flipped_kernel import FlippedKernelConv2d
from src.device.cpu_convolutions.im2col import Im2colConv2d
from src.device.cpu_convolutions.native import use_native_layers, use_own_layers
from src.device.cpu_convolutions.native.compilation import compiled_library
from src.device.cpu_convolutions.winograd import (
    KERNEL,
    NativeTransforms,
    PlainTransforms,
    WinogradConv2d,
)

# With fewer, Winograd's transforms cost more than they save: by our kernels, by MindSpore's
MANY_CHANNELS, MANY_CHANNELS_PLAIN = 32, 128


def use_cpu_convolutions(network: nn.Cell) -> None:
    """Replaces the computation of a network's convolutions by faster ones where possible.

    With many channels, 3×3 convolutions are computed by `WinogradConv2d` and larger kernels by
    `Im2colConv2d`. The others keep oneDNN's forward pass and get another input gradient, see
    `FlippedKernelConv2d`. In float32, depthwise and 1×1 convolutions and the layers around them
    use this project's kernels, see `native`. The precision must be set before; before an export,
    `use_own_convolutions` restores the network. On other devices nothing is changed.
    """
    if ms.get_context("device_target") != "CPU":
        return
    cells = [cell for _, cell in network.cells_and_names()]
    single = all(getattr(cell, "_amp_level", "") in ("", "O0") for cell in cells)
    if single and not any(_is_half(cell) for cell in cells):
        use_native_layers(network)
    made: dict[tuple, nn.Cell | None] = {}  # shared: each takes memory when compiled
    for cell in cells:
        if not isinstance(cell, nn.Conv2d) or not _keeps_size(cell):
            continue
        half = _is_half(cell)
        key = (cell.in_channels, cell.out_channels, cell.kernel_size, half)
        if key not in made:
            made[key] = _faster(cell, single and not half, half)
        if made[key] is not None:
            cell.own_conv2d = cell.conv2d
            _replace(cell, made[key])


def use_own_convolutions(network: nn.Cell) -> None:
    """Undoes `use_cpu_convolutions`, for files that other devices run."""
    use_own_layers(network)
    for _, cell in network.cells_and_names():
        if hasattr(cell, "own_conv2d"):
            _replace(cell, cell.own_conv2d)


def _is_half(cell: nn.Cell) -> bool:
    return any(cell.get_flags().get(kind) for kind in ("fp16", "bf16"))


def _replace(cell: nn.Conv2d, conv2d: nn.Cell | ops.Primitive) -> None:
    del cell.conv2d  # a cell does not become a primitive, nor the reverse
    cell.conv2d = conv2d


def _faster(cell: nn.Conv2d, single: bool, half: bool) -> nn.Cell | None:
    channels = min(cell.in_channels, cell.out_channels)
    # Winograd's algorithm loses digits, too many for half precision
    if cell.kernel_size == (KERNEL, KERNEL) and single:
        if channels >= MANY_CHANNELS and compiled_library() is not None:
            return WinogradConv2d(NativeTransforms())
        if channels >= MANY_CHANNELS_PLAIN:
            return WinogradConv2d(PlainTransforms())
    if channels >= MANY_CHANNELS_PLAIN and math.prod(cell.kernel_size) > KERNEL**2:
        return Im2colConv2d(cell.kernel_size)
    return None if half else FlippedKernelConv2d(cell)


def _keeps_size(cell: nn.Conv2d) -> bool:
    """Whether it keeps the size of maps: stride 1, odd kernel above 1, no groups, no dilation."""
    kernel = cell.kernel_size
    padded = cell.padding if isinstance(cell.padding, tuple) else (cell.padding,) * 4
    margins = tuple(k // 2 for k in kernel for _ in range(2))
    return (
        isinstance(cell.conv2d, ops.Primitive)
        and set(cell.stride) == {1}
        and set(cell.dilation) == {1}
        and cell.group == 1
        and all(k % 2 == 1 for k in kernel)
        and math.prod(kernel) > 1
        and (cell.pad_mode == "same" or padded == margins)
    )
