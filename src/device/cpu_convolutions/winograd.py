"""3×3 convolutions with a quarter of the multiplications, after Winograd."""

import math

import numpy as np
from mindspore import Tensor, nn, ops

from src.device.cpu_convolutions.permutation import PermuteRows

TILE, KERNEL = 4, 3  # sides, in pixels
WINDOW = TILE + KERNEL - 1  # what a tile of the output sees of the input
PLACES = WINDOW**2
# Pairs of reciprocals: errors are a quarter of those with the usual 0, ±1, ±2, and two to four
# times those of plain sums. The sixth point is infinity.
POINTS = (0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))


def transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices into the Winograd domain and back: Bᵀ⊗Bᵀ 36×36, G⊗G 36×9, A⊗A 36×16.

    A tile of the output is (A⊗A)ᵀ · [(G⊗G)·kernel ⊙ (Bᵀ⊗Bᵀ)·window], all of them flattened row by
    row (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.3; the
    matrices for any points: Toom-Cook's algorithm, transposed).
    """

    def powers(count: int) -> np.ndarray:
        finite = np.vander(POINTS, count, increasing=True)
        return np.vstack([finite, np.eye(count)[-1]])

    of_output, of_kernel = powers(TILE), powers(KERNEL)
    of_window = np.linalg.inv(powers(WINDOW)).T
    scale = np.abs(of_kernel).sum(axis=1, keepdims=True)
    in_a_row = of_window * scale, of_kernel / scale, of_output
    window, kernel, output = (np.kron(matrix, matrix).astype(np.float32) for matrix in in_a_row)
    return window, kernel, output


class WinogradConv2d(nn.Cell):
    """Convolves N×C×H×W float32 maps with an O×C×3×3 kernel, at stride 1 and with a margin of 1.

    Each tile of 4×4 outputs takes 36 products of a channel pair instead of 144, forward and in both
    gradients. Values are apart from those of plain sums by about 3e-6 of the largest.

    Args:
        in_channels: C.
        out_channels: O.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(auto_prefix=False)
        self.in_channels, self.out_channels = in_channels, out_channels
        of_window, of_kernel, of_tile = transforms()
        self.of_window = Tensor(of_window.reshape(PLACES, 1, WINDOW, WINDOW))
        self.of_kernel, self.to_kernel = Tensor(of_kernel), Tensor(of_kernel.T.copy())
        self.of_tile = Tensor(of_tile.reshape(PLACES, 1, TILE, TILE))
        # As many windows as tiles, where the last tile of a row or column may reach beyond the map
        of_windows, of_tiles = (1, TILE, 1, TILE), (0, TILE - 1, 0, TILE - 1)
        self.windows = ops.Conv2D(PLACES, WINDOW, 1, "pad", of_windows, TILE)
        self.from_windows = ops.Conv2DBackpropInput(PLACES, WINDOW, "pad", 0, of_windows, 1, TILE)
        self.tiles = ops.Conv2D(PLACES, TILE, 1, "pad", of_tiles, TILE)
        self.from_tiles = ops.Conv2DBackpropInput(PLACES, TILE, "pad", 0, of_tiles, 1, TILE)
        self.by_row = ops.MatMul(transpose_b=True)
        self.by_column = ops.MatMul(transpose_a=True, transpose_b=True)
        self.products = ops.BatchMatMul()
        self.products_of_kernel = ops.BatchMatMul(transpose_b=True)
        self.products_of_input = ops.BatchMatMul(transpose_a=True)
        self.permute = PermuteRows()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        n, _, height, width = x.shape
        places = self._places(self.windows, self.of_window, x)
        places = self.products(self._kernels(weight), places)
        shape = (n, self.out_channels, height, width)
        return self._maps(self.from_tiles, self.of_tile, places, shape)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        places = self._places(self.tiles, self.of_tile, dout)
        # Windows and kernels are transformed anew: the compiler would keep those of the forward
        # pass, twice as large as the maps and four times as large as the weights
        windows = self._places(self.windows, self.of_window, ops.depend(x, dout))
        kernels = self._kernels(ops.depend(weight, dout))
        of_kernels = self.products_of_kernel(places, windows)
        of_weight = self.by_column(of_kernels.reshape(PLACES, -1), self.to_kernel)
        places = self.products_of_input(kernels, places)
        of_x = self._maps(self.from_windows, self.of_window, places, x.shape)
        return of_x, of_weight.reshape(weight.shape)

    def _kernels(self, weight: Tensor) -> Tensor:
        """36×O×C."""
        kernels = self.by_row(self.of_kernel, weight.reshape(-1, KERNEL * KERNEL))
        return kernels.reshape(PLACES, self.out_channels, self.in_channels)

    def _places(self, transform: ops.Primitive, kernel: Tensor, maps: Tensor) -> Tensor:
        """36×C×(N·tiles) of N×C×H×W maps."""
        n, channels, height, width = maps.shape
        places = transform(maps.reshape(n * channels, 1, height, width), kernel)
        return self.permute(places, (n, channels, PLACES), (2, 1, 0)).reshape(PLACES, channels, -1)

    def _maps(
        self, transform: ops.Primitive, kernel: Tensor, places: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """Maps of the shape N×C×H×W of 36×C×(N·tiles)."""
        n, channels, height, width = shape
        down, across = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
        places = self.permute(places, (PLACES, channels, n), (2, 1, 0))
        places = places.reshape(n * channels, PLACES, down, across)
        return transform(places, kernel, (n * channels, 1, height, width)).reshape(shape)
