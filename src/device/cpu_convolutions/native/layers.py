"""Layers on the kernels, with MindSpore's parameters and values; for float32 alone."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.device.cpu_convolutions.native.compilation import operator

DEPTHWISE_KERNELS = (3, 5, 7)


class _Layer(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)


class TwoInputs(_Layer):
    """A function of two tensors by one kernel forward and one for both gradients.

    A convolution of images and weights, in place of `ops.Conv2D`; `plane_scale`, planes N×C×H×W
    times factors N×C×1×1; `rows_to_maps`, N×H×W×C → N×C×H×W, each channel times its factor.
    """

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self.forward = operator(kernel)
        self.gradient = operator(f"{kernel}_gradient", outputs=2)

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return self.forward(x, y)

    def bprop(self, x: Tensor, y: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return self.gradient(x, y, dout)


class OneInput(_Layer):
    """A function of one tensor by a kernel and one for its gradient.

    `swish` and `gelu` (by tanh); `plane_mean`, the mean of each plane, N×C×H×W → N×C×1×1;
    `maps_to_rows`, N×C×H×W → N×H×W×C.
    """

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self.forward = operator(kernel)
        self.gradient = operator(f"{kernel}_gradient")

    def construct(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.gradient(x, dout),)


class _BatchNorm(_Layer):
    def __init__(self, cell: nn.BatchNorm2d, kernel: str, outputs: int) -> None:
        super().__init__()
        self.options = Tensor([cell.eps, cell.momentum], ms.float32)  # momentum of the new values
        self.forward = operator(kernel, outputs)
        self.gradient = operator(f"{kernel}_gradient", outputs=3)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        return self.forward(x, gamma, beta, mean, variance, self.options)


class _BatchStatistics(_BatchNorm):
    """Returns the normalised maps, the batch's statistics and the new running ones."""

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor,
        out: tuple[Tensor, ...], dout: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        of = self.gradient(x, gamma, beta, out[1], out[2], self.options, dout[0])
        return of[0], of[1], of[2], ops.zeros_like(mean), ops.zeros_like(variance)


class _RunningStatistics(_BatchNorm):
    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor,
        out: Tensor, dout: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        of = self.gradient(x, gamma, beta, mean, variance, self.options, dout)
        return of[0], of[1], of[2], ops.zeros_like(mean), ops.zeros_like(variance)


class BatchNormTraining(_Layer):
    """In place of `bn_train` of an `nn.BatchNorm2d`: by the batch's own statistics.

    `kernel` may include the activation that follows, as in `batch_norm_relu`.
    """

    def __init__(self, cell: nn.BatchNorm2d, kernel: str) -> None:
        super().__init__()
        self.normalize = _BatchStatistics(cell, kernel, outputs=5)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor]:
        y, _, _, new_mean, new_variance = self.normalize(x, gamma, beta, mean, variance)
        updated = ops.assign(mean, new_mean), ops.assign(variance, new_variance)
        return (ops.depend(y, updated),)


class BatchNormInference(_Layer):
    """In place of `bn_infer` of an `nn.BatchNorm2d`: by the running statistics."""

    def __init__(self, cell: nn.BatchNorm2d, kernel: str) -> None:
        super().__init__()
        self.normalize = _RunningStatistics(cell, f"{kernel}_inference", outputs=1)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor]:
        return (self.normalize(x, gamma, beta, mean, variance),)


class _LastAxisNorm(_Layer):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        self.forward = operator("layer_norm")
        self.gradient = operator("layer_norm_gradient", outputs=3)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.forward(x, gamma, beta, self.epsilon)

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.gradient(x, gamma, self.epsilon, dout)


class LayerNorm(_Layer):
    """In place of `layer_norm` of an `nn.LayerNorm` over the last axis."""

    def __init__(self, cell: nn.LayerNorm) -> None:
        super().__init__()
        self.normalize = _LastAxisNorm(cell.epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, int, int]:
        return self.normalize(x, gamma, beta), 0, 0  # mean and variance, which are not used


class BiasAdd(_Layer):
    """In place of `bias_add` of an `nn.Dense`."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = ops.BiasAdd()
        self.gradient = operator("bias_gradient")

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, bias)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return dout, self.gradient(dout)


class _TransposedProducts(_Layer):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = operator("weight_matrix")
        self.matrix_gradient = operator("weight_matrix_gradient")
        self.columns = operator("neighbourhoods")
        self.columns_gradient = operator("neighbourhoods_gradient")
        self.to_maps, self.to_phases = operator("phases_to_maps"), operator("maps_to_phases")
        self.product = ops.MatMul()
        self.product_x = ops.MatMul(transpose_a=True)
        self.product_weight = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.to_maps(self.product(self.matrix(weight), self.columns(x)), x, weight)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        phases = self.to_phases(dout, x, weight)
        dx = self.columns_gradient(self.product_x(self.matrix(weight), phases), x)
        d_matrix = self.product_weight(phases, self.columns(x))
        return dx, self.matrix_gradient(d_matrix, weight)


class TransposedConvolution(_Layer):
    """In place of `conv2d_transpose` of an `nn.Conv2dTranspose`: kernel 2f, stride f, padding f/2.

    One matrix product gives the f×f outputs between each four neighbouring pixels, two more the
    gradients. oneDNN takes several times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = _TransposedProducts()

    def construct(self, x: Tensor, weight: Tensor, size: tuple[int, ...]) -> Tensor:
        return self.products(x, weight)


class SqueezeExcite(_Layer):
    """mindcv's layer of this name, by its own convolutions (Hu et al. 2018)."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        # Under mindcv's names, of which those of parameters are made
        self.conv_reduce, self.conv_expand = cell.conv_reduce, cell.conv_expand
        self.act, self.gate = cell.act, cell.gate
        self.bn = cell.bn if cell.norm else nn.Identity()
        self.pool, self.scale = OneInput("plane_mean"), TwoInputs("plane_scale")

    def construct(self, x: Tensor) -> Tensor:
        squeezed = self.act(self.bn(self.conv_reduce(self.pool(x))))
        return self.scale(x, self.gate(self.conv_expand(squeezed)))


class ConvNextBlock(_Layer):
    """mindcv's `Block` of ConvNeXt (Liu et al. 2022), by its own layers."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        # Under mindcv's names, of which those of parameters are made
        self.dwconv, self.norm = cell.dwconv, cell.norm
        self.pwconv1, self.act, self.pwconv2 = cell.pwconv1, cell.act, cell.pwconv2
        self.gamma_, self.drop_path = cell.gamma_, cell.drop_path
        self.to_rows, self.to_maps = OneInput("maps_to_rows"), TwoInputs("rows_to_maps")

    def construct(self, x: Tensor) -> Tensor:
        rows = self.norm(self.to_rows(self.dwconv(x)))
        rows = self.pwconv2(self.act(self.pwconv1(rows)))
        return x + self.drop_path(self.to_maps(rows, self.gamma_))


class ConvNextMapsNorm(_Layer):
    """mindcv's `ConvNextLayerNorm` over the channels of N×C×H×W maps."""

    def __init__(self, cell: nn.LayerNorm) -> None:
        super().__init__()
        self.gamma, self.beta = cell.gamma, cell.beta
        self.normalize = _LastAxisNorm(cell.epsilon)
        self.to_rows, self.to_maps = OneInput("maps_to_rows"), TwoInputs("rows_to_maps")
        self.ones = Tensor(np.ones(cell.normalized_shape, np.float32))

    def construct(self, x: Tensor) -> Tensor:
        rows = self.normalize(self.to_rows(x), self.gamma, self.beta)
        return self.to_maps(rows, self.ones)
