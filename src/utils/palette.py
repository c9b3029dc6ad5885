"""Colours of classes, RGB."""

import numpy as np


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
