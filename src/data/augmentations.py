"""Augmentations of a training crop, for `dataset.augmentations`.

Each is a function of (image, label, rng) that returns image and label of the same size: the image
H×W×3 uint8 RGB, not normalised, the label H×W uint8 class ids, the rng a `numpy.random.Generator`
that all randomness comes from. Pixels to be ignored get the label `VOID`,
whatever `dataset.ignore_index` is. A crop that is smaller than `dataset.crop_size` is padded later.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from src.utils.errors import UserError

Augmentation = Callable[
    [np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]
]
VOID = 255  # never a class id: these end at 254; becomes `dataset.ignore_index`


class PhotometricJitter:
    """Random brightness, contrast, saturation and hue of the crop, each with probability 0.5.

    This is SSD's photometric distortion (Liu et al. 2016) with half of its range of hues: its 18
    are in OpenCV's units, of two degrees each.

    Args:
        brightness: Largest shift, in grey levels (0–255).
        contrast: Contrast factor is uniform in 1 ± this.
        saturation: Saturation factor is uniform in 1 ± this.
        hue: Largest rotation of the hue circle, in degrees (0–180).
    """

    def __init__(
        self,
        brightness: float = 32,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 18,
    ) -> None:
        _check("PhotometricJitter", "brightness", brightness, 255)
        _check("PhotometricJitter", "contrast", contrast, 1)
        _check("PhotometricJitter", "saturation", saturation, 1)
        _check("PhotometricJitter", "hue", hue, 180)
        self.brightness, self.contrast, self.saturation, self.hue = (
            brightness,
            contrast,
            saturation,
            hue,
        )

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes and returns an H×W×3 uint8 RGB image; the label passes through."""
        shift = rng.uniform(-self.brightness, self.brightness) * (rng.uniform() < 0.5)
        gain = 1 + rng.uniform(-self.contrast, self.contrast) * (rng.uniform() < 0.5)
        saturation = 1 + rng.uniform(-self.saturation, self.saturation) * (rng.uniform() < 0.5)
        turn = rng.uniform(-self.hue, self.hue) * (rng.uniform() < 0.5)
        levels = np.arange(256, dtype=np.float32)
        if shift or gain != 1:
            image = cv2.LUT(
                image, np.clip((levels + shift) * gain, 0, 255).round().astype(np.uint8)
            )
        if saturation != 1 or turn:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # hue in 256 steps a circle
            table = np.stack(
                [
                    (levels + turn * 256 / 360) % 256,
                    np.clip(levels * saturation, 0, 255),
                    levels,
                ],
                axis=1,
            )
            hsv = cv2.LUT(hsv, table.astype(np.uint8)[None])
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
        return image, label


class RandomRotation:
    """Rotation about the middle of the crop, by an angle that is uniform in ± `degrees`.

    The image is interpolated bilinearly, the label takes the nearest pixel. The corners that
    come from outside the crop are void; the image shows its mirror image there.

    Args:
        degrees: Largest angle, in degrees (0–180).
        probability: Of a rotation.
    """

    def __init__(self, degrees: float = 10, probability: float = 0.5) -> None:
        _check("RandomRotation", "degrees", degrees, 180)
        _check("RandomRotation", "probability", probability, 1)
        self.degrees, self.probability = degrees, probability

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes and returns an H×W×3 uint8 RGB image and its H×W uint8 label."""
        angle = rng.uniform(-self.degrees, self.degrees)
        if rng.uniform() >= self.probability:
            return image, label
        height, width = label.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
        image = cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        label = cv2.warpAffine(
            label,
            matrix,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=VOID,
        )
        return image, label


class Cutout:
    """Square holes at random places (DeVries & Taylor 2017), filled with the crop's mean colour.

    The middle of a hole is any pixel of the crop, so that holes at its edge are cut off there, as
    in the paper.

    Args:
        size: Side of a hole, in pixels of the crop.
        count: Holes a crop.
        keep_label: Keeps the label, to be predicted from the surroundings of a hole; by default
            holes are void.
        probability: Of making the holes.
    """

    def __init__(
        self, size: int = 64, count: int = 1, keep_label: bool = False, probability: float = 0.5
    ) -> None:
        for name, value in {"size": size, "count": count}.items():
            if value < 1:
                raise UserError(f"Cutout {name}={value}: expected a whole number from 1 on")
        _check("Cutout", "probability", probability, 1)
        self.size, self.count, self.keep_label = size, count, keep_label
        self.probability = probability

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes and returns an H×W×3 uint8 RGB image and its H×W uint8 label."""
        if rng.uniform() >= self.probability:
            return image, label
        mean = np.rint(cv2.mean(image)[:3])
        image, label = image.copy(), label.copy()
        for _ in range(self.count):
            top, left = (int(rng.integers(side)) - self.size // 2 for side in label.shape)
            hole = (
                slice(max(0, top), top + self.size),
                slice(max(0, left), left + self.size),
            )
            image[hole] = mean
            if not self.keep_label:
                label[hole] = VOID
        return image, label


class GaussianBlur:
    """Blur by a Gaussian whose sigma is uniform in a range; by default SimCLR's (Chen et al. 2020).

    Args:
        sigma: Smallest and largest standard deviation of the Gaussian, in pixels, above 0.
        probability: Of a blur.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), probability: float = 0.5) -> None:
        if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1]:
            raise UserError(
                f"GaussianBlur sigma={list(sigma)}: expected [smallest, largest] above 0, as "
                "[0.1, 2.0]"
            )
        _check("GaussianBlur", "probability", probability, 1)
        self.sigma, self.probability = tuple(sigma), probability

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes and returns an H×W×3 uint8 RGB image; the label passes through."""
        sigma = rng.uniform(self.sigma[0], self.sigma[1])
        if rng.uniform() < self.probability:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        return image, label


class GaussianNoise:
    """Gaussian noise, independent in each pixel and channel.

    Args:
        std: Standard deviation, in grey levels (0–255).
        probability: Of added noise.
    """

    def __init__(self, std: float = 10, probability: float = 0.5) -> None:
        _check("GaussianNoise", "std", std, 255)
        _check("GaussianNoise", "probability", probability, 1)
        self.std, self.probability = std, probability

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes and returns an H×W×3 uint8 RGB image; the label passes through."""
        if rng.uniform() < self.probability:
            noise = rng.standard_normal(image.shape, np.float32)
            image = cv2.addWeighted(image, 1, noise, self.std, 0, dtype=cv2.CV_8U)
        return image, label


def _check(augmentation: str, name: str, value: float, high: float) -> None:
    if not 0 <= value <= high:
        raise UserError(f"{augmentation} {name}={value}: expected 0 to {high}")
