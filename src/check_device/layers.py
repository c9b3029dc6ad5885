"""The layers of the project's networks, forward and backward, and the same in NumPy."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.check_device.check import Arrays
from src.device.dropout import make_dropout_repeatable
from src.models.layers import BilinearUpsample

BATCH, CLASSES = 2, 21
UPSAMPLED_SIZES = ((1, 2), (3, 5), (6, 6))
DROPPED = 0.5
NORM = {"momentum": 0.9, "eps": 1e-5}


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def gradients(cell: nn.Cell, x: np.ndarray, output_gradient: np.ndarray) -> Arrays:
    """Output of a cell, and the gradients of its input and its parameters by their names."""
    parameters = cell.trainable_params()

    def forward(images: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        output = cell(images)
        return (output * factor).sum(), output

    differentiated = ms.value_and_grad(forward, 0, parameters, has_aux=True)
    (_, output), (of_input, of_parameters) = differentiated(Tensor(x), Tensor(output_gradient))
    found = {"output": output.asnumpy(), "gradient of the input": of_input.asnumpy()}
    for parameter, gradient in zip(parameters, of_parameters, strict=True):
        found[f"gradient of {parameter.name}"] = gradient.asnumpy()
    return found


def _same_convolution(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A convolution in float64: output, gradients of input and weight; dy is the output's."""
    x, weight, dy = (array.astype(np.float64) for array in (x, weight, dy))
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y, dx, dw = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(weight)
    height, width = ((size - 1) * stride + 1 for size in dy.shape[2:])
    for i, j in np.ndindex(weight.shape[2:]):
        seen = np.s_[:, :, i : i + height : stride, j : j + width : stride]
        y += np.einsum("nchw,oc->nohw", padded[seen], weight[:, :, i, j], optimize=True)
        dx[seen] += np.einsum("nohw,oc->nchw", dy, weight[:, :, i, j], optimize=True)
        dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, padded[seen], optimize=True)
    inside = np.s_[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]]
    return y, dx[inside], dw


def _convolution_inputs(kernel: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = normal(1, 24, 16, kernel, kernel) / kernel
    return normal(0, BATCH, 16, 18, 22), weight, normal(2, BATCH, 24, 18 // stride, 22 // stride)


def convolution(kernel: int, stride: int) -> Arrays:
    """A convolution with half a kernel's padding, 16 → 24 channels."""
    x, weight, output_gradient = _convolution_inputs(kernel, stride)
    cell = nn.Conv2d(
        16, 24, kernel, stride, pad_mode="pad", padding=kernel // 2, weight_init=Tensor(weight)
    )
    return gradients(cell, x, output_gradient)


def convolution_expected(kernel: int, stride: int) -> Arrays:
    """The same in NumPy."""
    x, weight, output_gradient = _convolution_inputs(kernel, stride)
    names = ("output", "gradient of the input", "gradient of weight")
    values = _same_convolution(x, weight, output_gradient, stride, kernel // 2)
    return dict(zip(names, values, strict=True))


def _at_sizes(work: Callable[[int, int], Arrays]) -> Arrays:
    return {
        f"{name} at {height}×{width}": array
        for height, width in UPSAMPLED_SIZES
        for name, array in work(height, width).items()
    }


def _upsampling_inputs(
    factor: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = normal(0, BATCH, CLASSES, height, width)
    weight = normal(1, CLASSES, CLASSES, 2 * factor, 2 * factor)
    return x, weight, normal(2, BATCH, CLASSES, factor * height, factor * width)


def upsampling(factor: int) -> Arrays:
    """The layer that enlarges class scores, at three sizes."""

    def work(height: int, width: int) -> Arrays:
        x, weight, output_gradient = _upsampling_inputs(factor, height, width)
        cell = BilinearUpsample(CLASSES, factor)
        cell.weight.set_data(Tensor(weight))
        return gradients(cell, x, output_gradient)

    return _at_sizes(work)


def upsampling_expected(factor: int) -> Arrays:
    """The same in NumPy: the layer is the gradient of a convolution's input."""

    def work(height: int, width: int) -> Arrays:
        x, weight, output_gradient = _upsampling_inputs(factor, height, width)
        of_input, output, of_weight = _same_convolution(
            output_gradient, weight, x, factor, factor // 2
        )
        return {
            "output": output,
            "gradient of the input": of_input,
            "gradient of weight": of_weight,
        }

    return _at_sizes(work)


def max_pooling() -> Arrays:
    """The pooling of VGG."""
    return gradients(nn.MaxPool2d(2, 2), normal(0, 2, 16, 18, 22), normal(1, 2, 16, 9, 11))


def max_pooling_expected() -> Arrays:
    """The same in NumPy."""
    x, output_gradient = normal(0, 2, 16, 18, 22), normal(1, 2, 16, 9, 11)
    output = x.reshape(2, 16, 9, 2, 11, 2).max((3, 5))

    def enlarged(array: np.ndarray) -> np.ndarray:
        return array.repeat(2, 2).repeat(2, 3)

    largest = enlarged(output) == x
    return {"output": output, "gradient of the input": largest * enlarged(output_gradient)}


def _batch_norm_inputs() -> tuple[np.ndarray, np.ndarray]:
    return 3 * normal(0, 4, 16, 9, 11) + 1, normal(1, 4, 16, 9, 11)


def batch_norm() -> Arrays:
    """Batch normalisation in training, with its running statistics."""
    cell = nn.BatchNorm2d(16, **NORM).set_train()
    found = gradients(cell, *_batch_norm_inputs())
    return {
        **found,
        "running mean": cell.moving_mean.asnumpy(),
        "running variance": cell.moving_variance.asnumpy(),
    }


def batch_norm_expected() -> Arrays:
    """The same in NumPy."""
    x, output_gradient = (array.astype(np.float64) for array in _batch_norm_inputs())
    mean, variance = (f((0, 2, 3), keepdims=True) for f in (x.mean, x.var))
    scale = np.sqrt(variance + NORM["eps"])
    output = (x - mean) / scale
    of_gamma = (output_gradient * output).sum((0, 2, 3))
    of_beta = output_gradient.sum((0, 2, 3))
    count = x.size // 16
    spread = (of_beta[:, None, None] + output * of_gamma[:, None, None]) / count
    keep = NORM["momentum"]
    unbiased = variance.ravel() * count / (count - 1)
    return {
        "output": output,
        "gradient of the input": (output_gradient - spread) / scale,
        "gradient of gamma": of_gamma,
        "gradient of beta": of_beta,
        "running mean": (1 - keep) * mean.ravel(),
        "running variance": keep + (1 - keep) * unbiased,
    }


def dropout() -> Arrays:
    """The share that is dropped, the kept values and the gradient: differences from expected."""
    cell = nn.SequentialCell([nn.Dropout(p=DROPPED)])
    make_dropout_repeatable(cell, seed=0)
    cell.set_train()
    ones = np.ones((4, 64, 32, 32), np.float32)
    found = gradients(cell, ones, ones)
    output = found["output"]
    return {
        "dropped": np.array((output == 0).mean() - DROPPED),
        "kept": output[output != 0] - 1 / (1 - DROPPED),
        "gradient": found["gradient of the input"] - output,
    }


def class_ids() -> Arrays:
    """The arg-max over the classes, as validation takes it: differences from NumPy's."""
    logits = normal(0, BATCH, CLASSES, 33, 47)
    ids = ops.Argmax(axis=1, output_type=ms.int32)(Tensor(logits))
    return {"ids": (ids.asnumpy() != logits.argmax(1)).astype(np.float32)}
