"""Training images drawn by the rarity of their classes, instead of each once an epoch."""

from collections.abc import Sequence

import numpy as np

from src.data.transforms import decode_label
from src.utils.console import progress
from src.utils.errors import UserError
from src.utils.map_ahead import map_ahead
from src.utils.processes import available_cores


class RareClassSampling:
    """Rare class sampling of DAFormer (Hoyer et al. 2022, equations 5 and 6).

    A class c is drawn with probability exp((1 - f_c) / T) / Σ exp((1 - f_k) / T), where f_c is its
    share of all valid pixels, then an image, evenly among those that hold it. A class without a
    pixel is never drawn. DAFormer takes images with at least 3,000 pixels of the class (of 2
    megapixels); here one pixel is enough, and `TrainTransform` looks for a crop that holds it.

    Args:
        pixels: Pixels of each class in each image, N×C, see `class_pixels`.
        temperature: T, above 0; the lower, the more often rare classes are drawn. DAFormer: 0.01.
    """

    def __init__(self, pixels: np.ndarray, temperature: float) -> None:
        if not temperature > 0:
            raise UserError(
                f"dataset.rare_class_sampling={temperature}: expected a temperature above 0, as "
                "0.01, or null"
            )
        total = pixels.sum(axis=0)
        if not total.any():
            raise UserError(
                f"dataset.rare_class_sampling={temperature}: none of the {len(pixels)} samples has "
                "a valid pixel; raise dataset.limit_samples, or set dataset.rare_class_sampling="
                "null"
            )
        exponents = np.where(total > 0, (1 - total / total.sum()) / temperature, -np.inf)
        weights = np.exp(exponents - exponents.max())
        self.probabilities = weights / weights.sum()  # of each class
        self._images = [np.flatnonzero(column) for column in pixels.T]

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Index of an image, and the id of the class for which it was drawn."""
        class_id = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return int(rng.choice(self._images[class_id])), class_id


def class_pixels(
    rows: Sequence[tuple[str, bytes, bytes]], count: int, num_classes: int, ignore_index: int
) -> np.ndarray:
    """Pixels of each class in each of the first `count` rows, N×C int64, without void."""

    def counted(index: int) -> np.ndarray:
        label = decode_label(rows[index][2])
        return np.bincount(label.ravel(), minlength=256)[:num_classes]

    pixels = np.zeros((count, num_classes), np.int64)
    with progress() as bar:
        task = bar.add_task("classes of the training images", total=count)
        for index, counts in enumerate(map_ahead(counted, range(count), available_cores())):
            pixels[index] = counts
            bar.advance(task)
    if ignore_index < num_classes:
        pixels[:, ignore_index] = 0
    return pixels
