"""Layers computed by CPU kernels of our own (`kernels.cpp`), which are compiled at first use.

Depthwise convolutions, which MindSpore's oneDNN runs at a hundredth of the machine's rate, and the
layers beside them in light networks: 1×1 convolutions, normalisation, activations, squeeze and
excitation; and upsampling by transposed convolutions.
"""

import sys
from collections.abc import Iterator

from mindspore import nn, ops

from src.device.cpu_convolutions.native import layers
from src.device.cpu_convolutions.native.compilation import compiled_library

# Of a 1×1 convolution; larger matrices take long to pack, and oneDNN is as fast for them
MOST_WEIGHTS = 1 << 20
_FUSED = ("relu", "swish", "hard_swish")  # with batch normalisation


def use_native_layers(network: nn.Cell) -> None:
    """Replaces layers of a float32 network by our kernels, if there is a compiler."""
    if compiled_library() is None:
        return
    if isinstance(network, nn.SequentialCell):
        _fuse_activations(network)
    for name, layer in list(_native_layers(network)):
        _replace(network, name, layer)
    for cell in network.cells():
        use_native_layers(cell)


def use_own_layers(network: nn.Cell) -> None:
    """Undoes `use_native_layers`."""
    for name, own in network.__dict__.pop("_own_layers", {}).items():
        _set(network, name, own)
    for cell in network.cells():
        use_own_layers(cell)


def _fuse_activations(cells: nn.SequentialCell) -> None:
    """Fuses a batch normalisation with the activation after it, whose input is then not kept."""
    names = list(cells._cells)
    for name, following in zip(names, names[1:], strict=False):
        norm, activation = cells._cells[name], _activation(cells._cells[following])
        if activation in _FUSED and _is_own_norm(norm):
            for attribute, layer in _norm_layers(norm, f"batch_norm_{activation}"):
                _replace(norm, attribute, layer)
            _replace(cells, following, nn.Identity())


def _replace(cell: nn.Cell, name: str, layer: nn.Cell) -> None:
    own = cell._cells.get(name) or getattr(cell, name)
    cell.__dict__.setdefault("_own_layers", {})[name] = own
    _set(cell, name, layer)


def _set(cell: nn.Cell, name: str, layer: nn.Cell | ops.Primitive) -> None:
    if isinstance(layer, nn.Cell) and name in cell._cells:
        cell._cells[name] = layer  # where it was: parameters keep their order
        if isinstance(cell, nn.SequentialCell):
            cell.cell_list = tuple(cell._cells.values())
    else:
        delattr(cell, name)  # a primitive does not become a cell, nor the reverse
        setattr(cell, name, layer)


def _native_layers(cell: nn.Cell) -> Iterator[tuple[str, nn.Cell]]:
    """Attributes of a cell and the layers that replace them."""
    if isinstance(cell, nn.Conv2d) and isinstance(cell.conv2d, ops.Primitive):
        if kernel := _convolution_kernel(cell):
            yield "conv2d", layers.TwoInputs(kernel)
    elif isinstance(cell, nn.Conv2dTranspose) and _kernels_overlap_by_half(cell):
        yield "conv2d_transpose", layers.TransposedConvolution()
    elif _is_own_norm(cell):
        yield from _norm_layers(cell, "batch_norm")
    elif isinstance(cell, nn.LayerNorm) and isinstance(cell.layer_norm, ops.Primitive):
        if len(cell.normalized_shape) == 1 and cell.begin_norm_axis == -1:
            yield "layer_norm", layers.LayerNorm(cell)
    elif type(cell) is nn.Dense and cell.has_bias and isinstance(cell.bias_add, ops.Primitive):
        yield "bias_add", layers.BiasAdd()
    for name, child in cell._cells.items():
        if (kind := _activation(child)) in ("gelu", "swish"):
            yield name, layers.OneInput(kind)
        elif _is_mindcv(child, "layers.squeeze_excite", "SqueezeExcite"):
            yield name, layers.SqueezeExcite(child)
        elif _is_mindcv(child, "convnext", "Block"):
            if not child.use_grn and child.gamma_ is not None:
                yield name, layers.ConvNextBlock(child)
        elif _is_mindcv(child, "convnext", "ConvNextLayerNorm") and child.norm_axis == 1:
            yield name, layers.ConvNextMapsNorm(child)


def _kernels_overlap_by_half(cell: nn.Conv2dTranspose) -> bool:
    """Whether each output sums two by two inputs: kernel 2f, stride f, padding f/2.

    Twice the size is left to oneDNN, which is as fast there.
    """
    factor = cell.stride[0]
    return (
        isinstance(cell.conv2d_transpose, ops.Primitive)
        and factor > 2
        and factor % 2 == 0
        and cell.stride == (factor, factor)
        and cell.kernel_size == (2 * factor, 2 * factor)
        and cell.pad_mode == "pad"
        and cell.padding in (factor // 2, (factor // 2,) * 4)
        and cell.group == 1
        and set(cell.dilation) == {1}
    )


def _activation(cell: nn.Cell) -> str | None:
    if type(cell) is nn.GELU:
        return "gelu" if cell.approximate == "tanh" else None
    if _is_mindcv(cell, "layers.activation", "Swish"):
        return "swish"
    return {nn.SiLU: "swish", nn.ReLU: "relu", nn.HSwish: "hard_swish"}.get(type(cell))


def _is_own_norm(cell: nn.Cell) -> bool:
    return type(cell) is nn.BatchNorm2d and isinstance(cell.bn_train, ops.Primitive)


def _norm_layers(cell: nn.BatchNorm2d, kernel: str) -> Iterator[tuple[str, nn.Cell]]:
    yield "bn_train", layers.BatchNormTraining(cell, kernel)
    yield "bn_infer", layers.BatchNormInference(cell, kernel)


def _is_mindcv(cell: nn.Cell, module: str, name: str) -> bool:
    return type(cell) is getattr(sys.modules.get(f"mindcv.models.{module}"), name, None)


def _convolution_kernel(cell: nn.Conv2d) -> str | None:
    height, width = cell.kernel_size
    padded = set(cell.padding) if isinstance(cell.padding, tuple) else {cell.padding}
    same = cell.pad_mode == "same"
    if height != width or cell.dilation not in (1, (1, 1)) or len(set(cell.stride)) > 1:
        return None
    if not same and padded != {height // 2}:
        return None
    stride = cell.stride[0]
    if cell.group == 1 and height == stride == 1 and cell.weight.size <= MOST_WEIGHTS:
        return "pointwise"
    depthwise = cell.group == cell.in_channels == cell.out_channels
    if not depthwise or height not in layers.DEPTHWISE_KERNELS or stride > 2:
        return None
    return f"depthwise_stride{stride}" + ("_same" if same and stride == 2 else "")
