"""Colours of classes: palette, colourised ids, overlays. Everything is RGB."""

from pathlib import Path

import numpy as np
from PIL import Image


def voc_palette(num_colors: int = 256) -> np.ndarray:
    """The PASCAL VOC colour map, `num_colors`×3 uint8 RGB; id 255 is void's (224, 224, 192).

    Bit k of the id goes to bit 7 - k // 3 of channel k % 3, as the VOC devkit's VOClabelcolormap.
    """
    ids = np.arange(num_colors)
    palette = np.zeros((num_colors, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


def full_palette(palette: np.ndarray) -> np.ndarray:
    """Extends a C×3 palette to 256×3 by the VOC colours, so that ids such as 255 have one too."""
    full = voc_palette()
    full[: len(palette)] = palette
    return full


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
