"""The values and gradients of a layer, to be compared with those of another."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


class Loss(nn.Cell):
    """The sum of the squares of a layer's values, each with a weight of its own."""

    def __init__(self, layer: nn.Cell) -> None:
        super().__init__()
        self.layer = layer

    def construct(self, x: Tensor, weights: Tensor) -> Tensor:
        return (self.layer(x) ** 2 * weights).sum()


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def values_and_gradients(layer: nn.Cell, images: np.ndarray) -> dict[str, np.ndarray]:
    """The output, and the gradients of `Loss` by the images and all parameters."""
    x = Tensor(images)
    values = layer(x)
    parameters = ms.ParameterTuple(layer.trainable_params())
    gradient = ops.GradOperation(get_all=True, get_by_list=True)(Loss(layer), parameters)
    (of_x, _), of_parameters = gradient(x, Tensor(normal(*values.shape)))
    named = {p.name: g for p, g in zip(parameters, of_parameters, strict=True)}
    return {key: v.asnumpy() for key, v in {"values": values, "input": of_x, **named}.items()}
