"""Reading a MindIR graph: nodes in the order they run, constants and attributes as plain values.

The graph is MindSpore's protobuf message as `mindspore.export` hands it to its `custom_func`; of a
network exported with unknown height and width it holds no frozen size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# TensorProto.DataType → NumPy; the numbers are those of ONNX too
DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}

# Operators that have more inputs than it takes to compute them elsewhere: orders of execution, and
# the output's size, which follows from the other attributes
_INPUTS_USED = {"Load": 1, "Depend": 1, "Conv2DTranspose": 2, "InplaceAddExt": 3}


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        operator: MindSpore's name, as `Conv2D`.
        inputs: Names of the values it uses.
        output: Name of the value it makes, which may be a tuple.
        attributes: Of the primitive.
        dtype: TensorProto.DataType of the output; None for a tuple.
    """

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    dtype: int | None


class MindIRGraph:
    """The graph of a MindIR model.

    Attributes:
        input: Name of its one input.
        output: Name of its one output.
        parameters: Weights, under the names of the graph.
        constants: Numbers, tuples of numbers, and arrays.
        nodes: What the output needs, each after those it uses.
    """

    def __init__(self, model: Any) -> None:
        graph = model.graph
        (self.input,) = (value.name for value in graph.input)
        (self.output,) = (value.name for value in graph.output)
        self.parameters = {tensor.name: _array(tensor) for tensor in graph.parameter}
        primitives = {primitive.name: primitive for primitive in model.primitives}
        self.constants: dict[str, Any] = {}
        nodes = []
        for node in graph.node:
            attributes = {a.name: a for a in node.attribute}
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _value(attributes["value"])
                continue
            primitive = primitives[node.op_type.removeprefix("REF::")]
            used = node.input[: _INPUTS_USED.get(primitive.op_type)]
            tensors = attributes["shape"].tensors if "shape" in attributes else ()
            nodes.append(
                Node(
                    operator=primitive.op_type,
                    inputs=tuple(used),
                    output=node.output[0],
                    attributes={a.name: _value(a) for a in primitive.attribute},
                    dtype=tensors[0].data_type if tensors else None,
                )
            )
        self.nodes = tuple(_needed(nodes, self.output))


def _needed(nodes: list[Node], output: str) -> Iterator[Node]:
    wanted = {output}
    kept = []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return reversed(kept)


def _array(tensor: Any) -> np.ndarray:
    return np.frombuffer(tensor.raw_data, DTYPES[tensor.data_type]).reshape(tensor.dims)


def _value(attribute: Any) -> Any:
    """A number, a text, an array or a tuple of such; None for what is none of them."""
    kind = attribute.AttributeType.Name(attribute.type)
    if kind in ("TUPLE", "LIST"):
        return tuple(map(_value, attribute.values))
    if kind in ("TENSOR", "TENSORS"):
        return _array(attribute.tensors[0])
    if kind == "STRING":
        text = attribute.s or b"".join(attribute.strings)
        return text.decode() if isinstance(text, bytes) else text
    if kind == "BOOL":
        return bool(attribute.i or sum(attribute.ints))
    if kind.startswith(("INT", "UINT")):  # single numbers stand in `i`, those of a tuple in `ints`
        return attribute.ints[0] if attribute.ints else attribute.i
    if kind == "FLOAT":
        return attribute.floats[0] if attribute.floats else attribute.f
    return None
