"""From a MindIR graph to an ONNX model whose height and width are free.

MindSpore's own exporter writes fixed sizes and has no HSwish and no in-place addition, which the
mindcv networks use. The MindIR graph of unknown sizes needs no repair: operator by operator it has
a counterpart in ONNX.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.exporting.mindir_graph import DTYPES, MindIRGraph, Node
from src.utils.errors import UserError

OPSET = 17
IR_VERSION = 8  # that of the same year: older runtimes refuse newer ones

_SAME = {
    "Add": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div",
    "Adds": "Add", "Subs": "Sub", "Muls": "Mul", "Divs": "Div",  # with a number
    "ReLU": "Relu", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "HSwish": "HardSwish",
    "TensorMove": "Identity",
}  # fmt: skip
_ALIASES = ("Load", "Depend")
_TO_THE_END = np.iinfo(np.int64).max


def onnx_model(
    graph: MindIRGraph,
    shape: Sequence[int | None],
    output: str,
    metadata: dict[str, str],
) -> onnx.ModelProto:
    """Translates a graph.

    Args:
        graph: Of a network of one input, in inference mode.
        shape: Of the input, N×3×H×W; None where any size goes.
        output: Name of the output: "logits" (N×C×H×W float32) or "class_ids" (N×H×W int32).
        metadata: Goes into the model's properties.

    Raises:
        UserError: The graph has an operator that is not translated.
    """
    n, _, h, w = (symbol if d is None else d for d, symbol in zip(shape, "N3HW", strict=True))
    builder = _Builder(graph)
    builder.translate(output)
    if output == "class_ids":
        result = helper.make_tensor_value_info(output, TensorProto.INT32, [n, h, w])
    else:
        dims = [n, int(metadata["num_classes"]), h, w]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, dims)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [n, 3, h, w])
    model = helper.make_model(
        helper.make_graph(builder.nodes, "fcn", [images], [result], list(builder.arrays.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=metadata["project"],
        producer_version=metadata["project_version"],
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model


def _untranslated(what: str) -> UserError:
    return UserError(
        f"format=onnx: the network has MindSpore's {what}, which is not translated; use "
        "format=mindir"
    )


class _Shape:
    """The shape of a value, one number of which is looked up when it is used."""

    def __init__(self, of: str) -> None:
        self.of = of


class _Builder:
    """Nodes and arrays of the ONNX graph, and what each value of the MindIR graph became.

    A value is the name of a tensor; a number, an array or a tuple known now; a tuple of such
    things; or a `_Shape`.
    """

    def __init__(self, graph: MindIRGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, onnx.TensorProto] = {}
        self.values: dict[str, Any] = {graph.input: "images", **graph.constants}

    def translate(self, output: str) -> None:
        for node in self.graph.nodes:
            arguments = [self._value(name) for name in node.inputs]
            if node.operator in _ALIASES:
                self.values[node.output] = arguments[0]
            elif node.operator in _SAME:
                assert node.dtype is not None  # it makes no tuple
                tensors = [self.tensor(value, DTYPES[node.dtype]) for value in arguments]
                self.values[node.output] = self.add(_SAME[node.operator], *tensors)
            elif node.operator in _TRANSLATIONS:
                translate = _TRANSLATIONS[node.operator]
                self.values[node.output] = translate(self, node, *arguments)
            else:
                raise _untranslated(node.operator)
        self.nodes.append(
            helper.make_node("Identity", [self.values[self.graph.output]], [output], output)
        )

    def _value(self, name: str) -> Any:
        if name in self.graph.parameters:
            return self.array(name.partition(":")[2], self.graph.parameters[name])
        return self.values[name]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node; returns the name of its output."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def array(self, name: str, value: np.ndarray) -> str:
        if name not in self.arrays:
            self.arrays[name] = numpy_helper.from_array(value, name)
        return name

    def tensor(self, value: Any, dtype: type | None = None) -> str:
        """The name of a tensor that holds a value."""
        if isinstance(value, str):
            return value
        if dtype is None and isinstance(value, float):
            dtype = np.float32
        return self.array(f"constant_{len(self.arrays)}", np.asarray(value, dtype))

    def sizes(self, values: Any) -> str:
        """A one-dimensional int64 tensor of whole numbers known now or when the model runs."""
        if isinstance(values, _Shape):
            return self.add("Shape", values.of)
        if all(isinstance(value, int) for value in values):
            return self.tensor(values, np.int64)
        parts = [value if isinstance(value, str) else self.sizes((value,)) for value in values]
        return self.add("Concat", *parts, axis=0)


def _convolution(b: _Builder, node: Node, x: str, weight: str) -> str:
    a = node.attributes
    return b.add(
        "Conv",
        x,
        weight,
        kernel_shape=a["kernel_size"],
        strides=a["stride"][-2:],
        dilations=a["dilation"][-2:],
        group=a["group"],
        **_padding(a),
    )


def _transposed_convolution(b: _Builder, node: Node, x: str, weight: str) -> str:
    a = node.attributes
    return b.add(
        "ConvTranspose",
        x,
        weight,
        kernel_shape=a["kernel_size"],
        strides=a["stride"][-2:],
        dilations=a["dilation"][-2:],
        group=a["group"],
        **_padding(a),
    )


def _padding(attributes: dict[str, Any]) -> dict[str, Any]:
    mode = attributes["pad_mode"].lower()
    if mode == "pad":
        top, bottom, left, right = attributes["pad"]
        return {"pads": [top, left, bottom, right]}
    return {"auto_pad": {"same": "SAME_UPPER", "valid": "VALID"}[mode]}


def _bias(b: _Builder, node: Node, x: str, bias: str, *_: Any) -> str:
    producer = next(n for n in reversed(b.nodes) if n.output[0] == x)
    if producer.op_type == "Conv" and len(producer.input) == 2:
        producer.input.append(bias)
        return x
    return b.add("Add", x, bias)  # behind a matrix product, channels last


def _batch_norm(
    b: _Builder, node: Node, x: str, gamma: str, beta: str, mean: str, variance: str,
    training: bool, epsilon: float, *_: Any,
) -> tuple[str]:  # fmt: skip
    if training:
        raise _untranslated("BatchNorm in training mode")
    inputs = (x, gamma, beta, mean, variance)
    return (b.add("BatchNormalization", *inputs, epsilon=epsilon),)


def _layer_norm(
    b: _Builder, node: Node, x: str, gamma: str, beta: str, axis: int, _: int, epsilon: float
) -> tuple[str]:
    return (b.add("LayerNormalization", x, gamma, beta, axis=axis, epsilon=epsilon),)


def _max_pool(b: _Builder, node: Node, x: str) -> str:
    a = node.attributes
    kernel, strides = a["kernel_size"][-2:], a["strides"][-2:]
    return b.add("MaxPool", x, kernel_shape=kernel, strides=strides, **_padding(a))


def _gelu(b: _Builder, node: Node, x: str) -> str:
    """x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), MindSpore's formula; ONNX has it from opset 20."""
    cube = b.add("Mul", b.add("Mul", x, x), x)
    inner = b.add("Add", x, b.add("Mul", cube, b.tensor(0.044715)))
    tanh = b.add("Tanh", b.add("Mul", inner, b.tensor(math.sqrt(2 / math.pi))))
    half = b.add("Mul", x, b.tensor(0.5))
    return b.add("Mul", half, b.add("Add", tanh, b.tensor(1.0)))


def _matrix_product(
    b: _Builder, node: Node, x: str, y: str, transpose_x: bool, transpose_y: bool
) -> str:
    x, y = (
        b.add("Transpose", name, perm=[1, 0]) if transposed else name
        for name, transposed in ((x, transpose_x), (y, transpose_y))
    )
    return b.add("MatMul", x, y)


def _slice(
    b: _Builder, node: Node, x: str, begin: Any, end: Any, strides: Any,
    begin_mask: int, end_mask: int, *other_masks: int,
) -> str:  # fmt: skip
    if any(other_masks):
        raise _untranslated("StridedSlice that adds or drops dimensions")
    rank = range(len(begin))
    starts = [0 if begin_mask >> i & 1 else begin[i] for i in rank]
    ends = [_TO_THE_END if end_mask >> i & 1 else end[i] for i in rank]
    return b.add("Slice", x, b.sizes(starts), b.sizes(ends), b.sizes(tuple(rank)), b.sizes(strides))


def _part(b: _Builder, node: Node, x: str, begin: Any, size: Any) -> str:
    if any(begin) or (not isinstance(size, _Shape) and -1 in size):
        raise _untranslated("Slice with a begin other than 0 or a size of -1")
    return b.add("Slice", x, b.sizes(begin), b.sizes(size))


def _item(b: _Builder, node: Node, values: Any, index: int) -> Any:
    if isinstance(values, _Shape):
        return b.add("Shape", values.of, start=index, end=index + 1)
    return values[index]


def _resize(b: _Builder, node: Node, x: str, size: Any, align: bool, half_pixel: bool) -> str:
    if align or half_pixel:
        raise _untranslated("ResizeNearestNeighbor with aligned corners or centres")
    sizes = b.add("Concat", b.add("Shape", x, start=0, end=2), b.sizes(size), axis=0)
    return b.add(
        "Resize", x, "", "", sizes,
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


_TRANSLATIONS: dict[str, Callable[..., Any]] = {
    "Argmax": lambda b, node, x, axis, _: b.add(
        "Cast", b.add("ArgMax", x, axis=axis, keepdims=0), to=node.dtype
    ),
    "BatchNorm": _batch_norm,
    "BiasAdd": _bias,
    "Cast": lambda b, node, x, _: b.add("Cast", x, to=node.dtype),
    "Conv2D": _convolution,
    "Conv2DTranspose": _transposed_convolution,
    "Gather": lambda b, node, x, indices, axis, _: b.add("Gather", x, b.tensor(indices), axis=axis),
    "GeLU": _gelu,
    "HSigmoid": lambda b, node, x: b.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "InplaceAddExt": lambda b, node, x, y, factor: b.add(
        "Add", x, y if factor == 1 else b.add("Mul", y, b.tensor(float(factor)))
    ),
    "LayerNorm": _layer_norm,
    "MakeTuple": lambda b, node, *values: values,
    "MatMul": _matrix_product,
    "MaxPool": _max_pool,
    "ReduceMean": lambda b, node, x, axes, keep: b.add(
        "ReduceMean", x, axes=axes, keepdims=int(keep)
    ),
    "ResizeNearestNeighbor": _resize,
    "ReLU6": lambda b, node, x: b.add("Clip", x, b.tensor(0.0), b.tensor(6.0)),
    "Reshape": lambda b, node, x, size: b.add("Reshape", x, b.sizes(size)),
    "Shape": lambda b, node, x: _Shape(x),
    "Slice": _part,
    "StridedSlice": _slice,
    "Transpose": lambda b, node, x, axes: b.add("Transpose", x, perm=axes),
    "TupleGetItem": _item,
}
