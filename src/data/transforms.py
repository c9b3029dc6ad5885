"""From encoded bytes to a training pair: decode, sample one crop, normalise.

Image and label always go through the same function, so the pair cannot drift apart.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from src.utils.errors import UserError
from src.utils.normalization import Normalization

Augmentation = Callable[
    [np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]
]


def decode_image(encoded: bytes) -> np.ndarray:
    """Decodes an image file to H×W×3 uint8 RGB.

    Grey, palette and CMYK images become RGB, transparency is left out, and so is an EXIF rotation,
    since label files know none. OpenCV fills what is missing of a truncated JPEG with grey;
    `src.data.images.decode_whole_image` finds it.

    Raises:
        ValueError: Not an image, or of more than 8 bits a channel.
    """
    pixels = _decode(encoded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"{pixels.dtype} values; expected 8 bits a channel: scale them, since what range they "
            "use is not in the file"
        )
    return pixels


def decode_label(encoded: bytes) -> np.ndarray:
    """Decodes a grey PNG of class ids, as our MindRecord files hold them, to H×W uint8.

    Raises:
        ValueError: Not an image.
    """
    return _decode(encoded, cv2.IMREAD_GRAYSCALE)


def _decode(encoded: bytes, flags: int) -> np.ndarray:
    buffer = np.frombuffer(encoded, np.uint8)
    try:
        pixels = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # nothing in the buffer, or more pixels than OpenCV takes
        pixels = None
    if pixels is None:
        raise ValueError("not an image that OpenCV can decode; save it as PNG")
    return pixels


Region = tuple[slice, slice]


class TrainTransform:
    """The tutorial's augmentation: random scale, padding, random crop, flip.

    The crop is sampled first, at whole pixels of the image, and only it is resized: scaling the
    whole image and cropping it gives the same crops, but for offsets between pixels and a scale
    that is off by half a pixel in the crop's side. Differences to the tutorial: bilinear instead
    of cubic interpolation, and labels take the pixel whose centre is nearest instead of the one up
    and to the left.

    Args:
        crop_size: (H, W) of the result in pixels; None keeps the scaled image whole.
        scale_range: Bounds of the uniform scale factor; None does not scale.
        flip: Probability of mirroring left and right.
        ignore_index: Label of padded pixels.
        augmentations: Further functions of (H×W×3 uint8 RGB crop, label, rng).
    """

    def __init__(
        self,
        crop_size: Sequence[int] | None,
        scale_range: Sequence[float] | None,
        flip: float,
        ignore_index: int,
        augmentations: Sequence[Augmentation] = (),
    ) -> None:
        self.crop_size = tuple(crop_size) if crop_size is not None else None
        self.scale_range = tuple(scale_range) if scale_range is not None else (1.0, 1.0)
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise UserError(
                f"scale_range={scale_range}: expected [smallest, largest] above 0, as [0.5, 2.0]"
            )
        self.flip = flip
        self.ignore_index = ignore_index
        self.augmentations = tuple(augmentations)
        for augmentation in self.augmentations:
            if not callable(augmentation):
                raise UserError(
                    f"dataset.augmentations: {augmentation!r} is no augmentation; name one as "
                    "[{_target_: src.data.transforms.PhotometricJitter}]"
                )

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[Region]]:
        """Cuts the augmented crop out of an H×W×3 uint8 RGB image and its H×W label.

        Returns the crop (uint8 RGB, not normalised), its label, and the padding in it.
        """
        scale = rng.uniform(self.scale_range[0], self.scale_range[1])
        scaled = [max(1, int(scale * side)) for side in label.shape]
        crop = self.crop_size or tuple(scaled)
        shown = tuple(map(min, scaled, crop))
        sources = []
        for side, whole, part in zip(label.shape, scaled, shown, strict=True):
            length = max(1, round(part * side / whole))
            start = int(rng.integers(side - length + 1))
            sources.append(slice(start, start + length))
        mirrored = rng.uniform() < self.flip
        image = _resized(image[tuple(sources)], shown, cv2.INTER_LINEAR)
        label = _resized(label[tuple(sources)], shown, cv2.INTER_NEAREST_EXACT)
        if mirrored:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        below, beside = (c - s for c, s in zip(crop, shown, strict=True))
        if below or beside:
            sides = (0, below, beside, 0) if mirrored else (0, below, 0, beside)
            image = cv2.copyMakeBorder(image, *sides, cv2.BORDER_REPLICATE)
            label = cv2.copyMakeBorder(label, *sides, cv2.BORDER_REPLICATE)
        for augment in self.augmentations:
            image, label = augment(image, label, rng)
        columns = slice(0, beside) if mirrored else slice(shown[1], crop[1])
        padding = [(slice(shown[0], crop[0]), slice(None)), (slice(0, shown[0]), columns)]
        for region in padding:
            label[region] = self.ignore_index
        return image, label, padding


def network_input(
    crop: np.ndarray, label: np.ndarray, padding: Sequence[Region], normalization: Normalization
) -> tuple[np.ndarray, np.ndarray]:
    """Normalises the result of `TrainTransform`; padding is 0 afterwards.

    Returns a 3×h×w float32 image in the network's colour order and an h×w int32 label.
    """
    planes = normalization.apply(crop)
    for region in padding:
        planes[(slice(None), *region)] = 0
    return planes, label.astype(np.int32)


class PhotometricJitter:
    """Random brightness, contrast, saturation and hue of the crop, each with probability 0.5.

    The recipe is SSD's photometric distortion (Liu et al. 2016), with half of its range of hues:
    the 18 there are of OpenCV's units, of two degrees each.

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
        limits = {"brightness": (brightness, 255), "contrast": (contrast, 1)}
        limits |= {"saturation": (saturation, 1), "hue": (hue, 180)}
        for name, (value, high) in limits.items():
            if not 0 <= value <= high:
                raise UserError(f"photometric jitter {name}={value}: expected 0 to {high}")
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


def _resized(array: np.ndarray, size: tuple[int, ...], interpolation: int) -> np.ndarray:
    """A copy of `size` (H, W)."""
    if array.shape[:2] == size:
        return array.copy()
    return cv2.resize(array, size[::-1], interpolation=interpolation)
