"""Colours and textured surfaces of the made scenes, the same for ground and objects."""

import cv2
import numpy as np

Size = tuple[int, int]
"""Height and width in pixels."""


def turn(angle: float) -> np.ndarray:
    """The 2×2 matrix that turns by `angle`, in radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def random_color(rng: np.random.Generator) -> np.ndarray:
    """One RGB colour in 0..1, from the same distribution for ground and objects."""
    hue, saturation, value = rng.uniform([0, 0.2, 0.25], [360, 0.8, 0.95])
    saturation *= saturation  # strong colours are rare in photographs
    return cv2.cvtColor(np.array([[[hue, saturation, value]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]


def texture(rng: np.random.Generator, size: Size, color: np.ndarray) -> np.ndarray:
    """A textured surface around `color`; H×W×3 float32."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    axes = turn(rng.uniform(0, 2 * np.pi)).astype(np.float32)
    along, across = (columns * x + rows * y for x, y in axes)
    pattern = noise(rng, size, rng.uniform(20, 60), 4)  # plaster
    kind = rng.integers(5)
    if kind == 1:  # wood
        pattern = 0.6 * np.sin(along / rng.uniform(1.5, 4) + 6 * pattern) + 0.5 * pattern
    elif kind == 2:  # grass, fur
        kernel = np.zeros((11, 11), np.float32)
        tip = np.rint(5 * axes[0]).astype(int)
        cv2.line(kernel, (5 - tip).tolist(), (5 + tip).tolist(), 1.0)
        blades = rng.standard_normal(size, np.float32)
        pattern = cv2.filter2D(blades, -1, kernel / np.sqrt(kernel.sum())) + 0.5 * pattern
    elif kind == 3:  # granite, sand
        pattern = noise(rng, size, rng.uniform(2, 5), 2) + 0.5 * pattern
    elif kind == 4:  # cloth
        pitch = rng.uniform(1.2, 3)
        pattern = np.sin(along / pitch) * np.sin(across / pitch) + 0.6 * pattern
    tint = rng.uniform(0.01, 0.05) * (0.5 + color * rng.uniform(0.6, 1.4, 3))
    return (color + np.clip(pattern, -2, 2)[..., None] * tint).astype(np.float32)


def noise(rng: np.random.Generator, size: Size, cell: float, octaves: int) -> np.ndarray:
    """Value noise of about unit variance whose coarsest octave has cells of `cell` pixels."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1)
        grid = rng.standard_normal([int(side / step) + 3 for side in size], np.float32)
        total += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
    return total
