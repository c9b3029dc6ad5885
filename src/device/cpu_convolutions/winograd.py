"""3×3 convolutions with a quarter of the multiplications, after Winograd."""

import math

import numpy as np
from mindspore import Tensor, nn, ops

from src.device.cpu_convolutions.native.compilation import operator
from src.device.cpu_convolutions.permutation import PermuteRows

TILE, KERNEL = 4, 3  # sides, in pixels
WINDOW = TILE + KERNEL - 1  # what a tile of the output sees of the input
PLACES = WINDOW**2
# Pairs of reciprocals: errors are a quarter of those with the usual 0, ±1, ±2, and two to four
# times those of plain sums. The sixth point is infinity.
POINTS = (0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))


def transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices into the Winograd domain and back, of one dimension: Bᵀ 6×6, G 6×3, A 6×4.

    A tile of the output is Aᵀ·[(G·kernel·Gᵀ) ⊙ (Bᵀ·window·B)]·A (Lavin & Gray, "Fast Algorithms for
    Convolutional Neural Networks", 2015, section 4.3; the matrices for any points: Toom-Cook's
    algorithm, transposed).
    """

    def powers(count: int) -> np.ndarray:
        finite = np.vander(POINTS, count, increasing=True)
        return np.vstack([finite, np.eye(count)[-1]])

    of_tile, of_kernel = powers(TILE), powers(KERNEL)
    of_window = np.linalg.inv(powers(WINDOW)).T
    scale = np.abs(of_kernel).sum(axis=1, keepdims=True)
    window, kernel = of_window * scale, of_kernel / scale
    return window.astype(np.float32), kernel.astype(np.float32), of_tile.astype(np.float32)


class WinogradConv2d(nn.Cell):
    """Convolves N×C×H×W float32 maps with an O×C×3×3 kernel, at stride 1 and with a margin of 1.

    Each tile of 4×4 outputs takes 36 products of a channel pair instead of 144, forward and in both
    gradients. Values are apart from those of plain sums by about 3e-6 of the largest. The places
    of a tile are 36×C×(N·tiles), the last of which may reach beyond the map.

    Args:
        transforms: Into the Winograd domain and back.
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
        places = of.tiles(dout)
        # Windows and kernels are transformed anew: the compiler would keep those of the forward
        # pass, twice as large as the maps and four times as large as the weights
        windows = of.windows(ops.depend(x, dout))
        kernels = of.kernels(ops.depend(weight, dout))
        of_weight = of.to_kernels(self.products_of_kernel(places, windows), weight)
        return of.to_windows(self.products_of_input(kernels, places), x), of_weight


class NativeTransforms(nn.Cell):
    """The transforms of `WinogradConv2d` by kernels of our own."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.of_window, self.of_kernel, self.of_tile = map(Tensor, transforms())
        self.places, self.maps = operator("winograd_places"), operator("winograd_maps")
        self.kernel_places = operator("winograd_kernels")
        self.kernel_gradient = operator("winograd_kernels_gradient")

    def windows(self, x: Tensor) -> Tensor:
        """Places of what each tile sees of its input."""
        return self.places(x, self.of_window)

    def tiles(self, dout: Tensor) -> Tensor:
        """Places of the output's gradient."""
        return self.places(dout, self.of_tile)

    def kernels(self, weight: Tensor) -> Tensor:
        """36×O×C."""
        return self.kernel_places(weight, self.of_kernel)

    def to_tiles(self, places: Tensor, like: Tensor) -> Tensor:
        """Maps N×O×H×W of places, N×H×W as of `like`."""
        return self.maps(places, self.of_tile, like)

    def to_windows(self, places: Tensor, like: Tensor) -> Tensor:
        """The gradient of `windows`."""
        return self.maps(places, self.of_window, like)

    def to_kernels(self, places: Tensor, like: Tensor) -> Tensor:
        """The gradient of `kernels`."""
        return self.kernel_gradient(places, self.of_kernel, like)


class PlainTransforms(nn.Cell):
    """The same by MindSpore's operators, in two to four times the time."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        of_window, of_kernel, of_tile = (np.kron(matrix, matrix) for matrix in transforms())
        self.of_window = Tensor(of_window.reshape(PLACES, 1, WINDOW, WINDOW))
        self.of_kernel, self.to_kernel = Tensor(of_kernel), Tensor(of_kernel.T.copy())
        self.of_tile = Tensor(of_tile.reshape(PLACES, 1, TILE, TILE))
        # As many windows as tiles, where the last tile of a row or column may reach beyond the map
        of_windows, of_tiles = (1, TILE, 1, TILE), (0, TILE - 1, 0, TILE - 1)
        self.window_places = ops.Conv2D(PLACES, WINDOW, 1, "pad", of_windows, TILE)
        self.from_windows = ops.Conv2DBackpropInput(PLACES, WINDOW, "pad", 0, of_windows, 1, TILE)
        self.tile_places = ops.Conv2D(PLACES, TILE, 1, "pad", of_tiles, TILE)
        self.from_tiles = ops.Conv2DBackpropInput(PLACES, TILE, "pad", 0, of_tiles, 1, TILE)
        self.by_row = ops.MatMul(transpose_b=True)
        self.by_column = ops.MatMul(transpose_a=True, transpose_b=True)
        self.permute = PermuteRows()

    def windows(self, x: Tensor) -> Tensor:
        return self._places(self.window_places, self.of_window, x)

    def tiles(self, dout: Tensor) -> Tensor:
        return self._places(self.tile_places, self.of_tile, dout)

    def kernels(self, weight: Tensor) -> Tensor:
        kernels = self.by_row(self.of_kernel, weight.reshape(-1, KERNEL * KERNEL))
        return kernels.reshape(PLACES, *weight.shape[:2])

    def to_tiles(self, places: Tensor, like: Tensor) -> Tensor:
        return self._maps(self.from_tiles, self.of_tile, places, like)

    def to_windows(self, places: Tensor, like: Tensor) -> Tensor:
        return self._maps(self.from_windows, self.of_window, places, like)

    def to_kernels(self, places: Tensor, like: Tensor) -> Tensor:
        return self.by_column(places.reshape(PLACES, -1), self.to_kernel).reshape(like.shape)

    def _places(self, transform: ops.Primitive, kernel: Tensor, maps: Tensor) -> Tensor:
        n, channels, height, width = maps.shape
        places = transform(maps.reshape(n * channels, 1, height, width), kernel)
        return self.permute(places, (n, channels, PLACES), (2, 1, 0)).reshape(PLACES, channels, -1)

    def _maps(
        self, transform: ops.Primitive, kernel: Tensor, places: Tensor, like: Tensor
    ) -> Tensor:
        n, _, height, width = like.shape
        channels = places.shape[1]
        down, across = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
        places = self.permute(places, (PLACES, channels, n), (2, 1, 0))
        places = places.reshape(n * channels, PLACES, down, across)
        maps = transform(places, kernel, (n * channels, 1, height, width))
        return maps.reshape(n, channels, height, width)
