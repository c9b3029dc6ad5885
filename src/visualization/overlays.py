"""Colours of classes: palette, colourised ids, overlays. Everything is RGB."""

from pathlib import Path

import numpy as np
from PIL import Image

from src.utils.palette import full_palette


def colorize(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Maps H×W uint8 class ids to H×W×3 uint8 RGB."""
    return full_palette(palette)[ids]


def overlay(
    image: np.ndarray, ids: np.ndarray, palette: np.ndarray, opacity: float = 0.5
) -> np.ndarray:
    """Blends the class colours over an H×W×3 uint8 RGB image; black classes and void stay clear.

    Black is the background in every dataset that has one.
    """
    colors = colorize(ids, palette).astype(np.uint16)
    clear = (ids == 255) | ~colors.any(axis=-1)
    weight = np.where(clear, 0, round(opacity * 256)).astype(np.uint16)[..., None]
    return ((image * (256 - weight) + colors * weight) >> 8).astype(np.uint8)


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Writes H×W uint8 class ids as a grey PNG."""
    Image.fromarray(ids, "L").save(path, "PNG")


def write_palette(path: Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Writes H×W uint8 class ids as a palette PNG, the format of VOC's labels."""
    picture = Image.fromarray(ids, "P")
    picture.putpalette(full_palette(palette).ravel().tolist())
    picture.save(path, "PNG")


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes H×W×3 uint8 RGB as a PNG."""
    Image.fromarray(image, "RGB").save(path, "PNG")
