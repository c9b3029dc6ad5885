"""3×3 convolutions with a quarter of the multiplications, by Winograd's algorithm."""

import math

import numpy as np
from mindspore import Tensor, nn, ops

from src.device.cpu_convolutions.native.compilation import operator
from src.device.cpu_convolutions.permutation import PermuteRows

TILE, KERNEL = 4, 3  # sides, in pixels
WINDOW = TILE + KERNEL - 1  # of the input, for a tile of the output
DOMAIN = WINDOW**2  # values of a tile in the Winograd domain
# Pairs of reciprocals: errors are a quarter of those with the usual 0, ±1, ±2, and two to four
# times those of direct sums. The sixth point is infinity.
POINTS = (0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The one-dimensional matrices into the Winograd domain and back: Bᵀ 6×6, G 6×3, A 6×4.

    A tile of the output is Aᵀ·[(G·kernel·Gᵀ) ⊙ (Bᵀ·window·B)]·A (Lavin & Gray, "Fast Algorithms for
    Convolutional Neural Networks", 2015, section 4.3; the matrices for any points: Toom-Cook's
    algorithm, transposed).
    """

    def powers(count: int) -> np.ndarray:
        finite = np.vander(POINTS, count, increasing=True)
        return np.vstack([finite, np.eye(count)[-1]])

    b_t, g, a = np.linalg.inv(powers(WINDOW)).T, powers(KERNEL), powers(TILE)
    scale = np.abs(g).sum(axis=1, keepdims=True)
    b_t, g = b_t * scale, g / scale
    return b_t.astype(np.float32), g.astype(np.float32), a.astype(np.float32)


class WinogradConv2d(nn.Cell):
    """Convolves N×C×H×W float32 maps with an O×C×3×3 kernel, at stride 1 and with a margin of 1.

    Each tile of 4×4 outputs takes 36 products of a channel pair instead of 144, forward and in both
    gradients. Values differ from those of direct sums by about 3e-6 of the largest. In the Winograd
    domain, maps are 36×C×(N·tiles); the last tiles may extend beyond the map.

    Args:
        transforms: `NativeTransforms` or `PlainTransforms`, into the Winograd domain and back.
    """

    def __init__(self, transforms: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.transforms = transforms
        self.products = ops.BatchMatMul()
        self.products_of_kernel = ops.BatchMatMul(transpose_b=True)
        self.products_of_input = ops.BatchMatMul(transpose_a=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        of = self.transforms
        return of.to_tiles(self.products(of.kernels(weight), of.windows(x)), x)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        of = self.transforms
        domain = of.tiles(dout)
        # Windows and kernels are transformed anew: the compiler would keep those of the forward
        # pass, twice as large as the maps and four times as large as the weights
        windows = of.windows(ops.depend(x, dout))
        kernels = of.kernels(ops.depend(weight, dout))
        of_weight = of.to_kernels(self.products_of_kernel(domain, windows), weight)
        return of.to_windows(self.products_of_input(kernels, domain), x), of_weight


class NativeTransforms(nn.Cell):
    """The transforms of `WinogradConv2d` by this project's kernels."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.b_t, self.g, self.a = map(Tensor, matrices())
        self.to_domain = operator("maps_to_winograd")
        self.from_domain = operator("winograd_to_maps")
        self.kernels_to_domain = operator("kernels_to_winograd")
        self.kernel_gradient = operator("kernels_to_winograd_gradient")

    def windows(self, x: Tensor) -> Tensor:
        """The input window of each tile, in the Winograd domain."""
        return self.to_domain(x, self.b_t)

    def tiles(self, dout: Tensor) -> Tensor:
        """The gradient of the output, in the Winograd domain."""
        return self.to_domain(dout, self.a)

    def kernels(self, weight: Tensor) -> Tensor:
        """The kernels in the Winograd domain, 36×O×C."""
        return self.kernels_to_domain(weight, self.g)

    def to_tiles(self, domain: Tensor, like: Tensor) -> Tensor:
        """Maps N×O×H×W from the Winograd domain, with N, H and W of `like`."""
        return self.from_domain(domain, self.a, like)

    def to_windows(self, domain: Tensor, like: Tensor) -> Tensor:
        """The gradient of `windows`."""
        return self.from_domain(domain, self.b_t, like)

    def to_kernels(self, domain: Tensor, like: Tensor) -> Tensor:
        """The gradient of `kernels`."""
        return self.kernel_gradient(domain, self.g, like)


class PlainTransforms(nn.Cell):
    """The same by MindSpore's operators, which take two to four times as long."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        b_t, g, a = (np.kron(matrix, matrix) for matrix in matrices())
        self.b_t = Tensor(b_t.reshape(DOMAIN, 1, WINDOW, WINDOW))
        self.g, self.g_t = Tensor(g), Tensor(g.T.copy())
        self.a = Tensor(a.reshape(DOMAIN, 1, TILE, TILE))
        # As many windows as tiles; the last tile of a row or column may extend beyond the map
        of_windows, of_tiles = (1, TILE, 1, TILE), (0, TILE - 1, 0, TILE - 1)
        self.windows_to_domain = ops.Conv2D(DOMAIN, WINDOW, 1, "pad", of_windows, TILE)
        self.from_windows = ops.Conv2DBackpropInput(DOMAIN, WINDOW, "pad", 0, of_windows, 1, TILE)
        self.tiles_to_domain = ops.Conv2D(DOMAIN, TILE, 1, "pad", of_tiles, TILE)
        self.from_tiles = ops.Conv2DBackpropInput(DOMAIN, TILE, "pad", 0, of_tiles, 1, TILE)
        self.by_row = ops.MatMul(transpose_b=True)
        self.by_column = ops.MatMul(transpose_a=True, transpose_b=True)
        self.permute = PermuteRows()

    def windows(self, x: Tensor) -> Tensor:
        return self._to_domain(self.windows_to_domain, self.b_t, x)

    def tiles(self, dout: Tensor) -> Tensor:
        return self._to_domain(self.tiles_to_domain, self.a, dout)

    def kernels(self, weight: Tensor) -> Tensor:
        kernels = self.by_row(self.g, weight.reshape(-1, KERNEL * KERNEL))
        return kernels.reshape(DOMAIN, *weight.shape[:2])

    def to_tiles(self, domain: Tensor, like: Tensor) -> Tensor:
        return self._from_domain(self.from_tiles, self.a, domain, like)

    def to_windows(self, domain: Tensor, like: Tensor) -> Tensor:
        return self._from_domain(self.from_windows, self.b_t, domain, like)

    def to_kernels(self, domain: Tensor, like: Tensor) -> Tensor:
        return self.by_column(domain.reshape(DOMAIN, -1), self.g_t).reshape(like.shape)

    def _to_domain(self, transform: ops.Primitive, kernel: Tensor, maps: Tensor) -> Tensor:
        n, channels, height, width = maps.shape
        domain = transform(maps.reshape(n * channels, 1, height, width), kernel)
        return self.permute(domain, (n, channels, DOMAIN), (2, 1, 0)).reshape(DOMAIN, channels, -1)

    def _from_domain(
        self, transform: ops.Primitive, kernel: Tensor, domain: Tensor, like: Tensor
    ) -> Tensor:
        n, _, height, width = like.shape
        channels = domain.shape[1]
        down, across = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
        domain = self.permute(domain, (DOMAIN, channels, n), (2, 1, 0))
        domain = domain.reshape(n * channels, DOMAIN, down, across)
        maps = transform(domain, kernel, (n * channels, 1, height, width))
        return maps.reshape(n, channels, height, width)
