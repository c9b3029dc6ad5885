"""From encoded bytes to a training pair: decode, sample one crop, normalise.

Image and label always go through the same function, so the pair cannot drift apart.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from src.data.augmentations import VOID, Augmentation
from src.utils.errors import UserError
from src.utils.normalization import Normalization

TRIES = 10  # places of a crop, until one suits


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
        augmentations: Further functions, see `src.data.augmentations`. They get the crop without
            its padding, which they cannot move or mix with the image therefore.
        max_class_share: While a class covers this share of the crop's valid pixels or more, or
            none is valid, another place is drawn, up to ten in all; above 0 to 1. The
            `cat_max_ratio` of mmsegmentation, where it is 0.75. None takes any crop.
    """

    def __init__(
        self,
        crop_size: Sequence[int] | None,
        scale_range: Sequence[float] | None,
        flip: float,
        ignore_index: int,
        augmentations: Sequence[Augmentation] = (),
        max_class_share: float | None = None,
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
                    "[{_target_: src.data.augmentations.PhotometricJitter}]"
                )
        if max_class_share is not None and not 0 < max_class_share <= 1:
            raise UserError(
                f"dataset.max_class_share={max_class_share}: expected a share above 0 and up to 1, "
                "as 0.75, or null"
            )
        if max_class_share is not None and crop_size is None:
            raise UserError(
                f"dataset.max_class_share={max_class_share} with dataset.crop_size=null: a whole "
                "image leaves no other crop to draw; set dataset.max_class_share=null, or give "
                "dataset.crop_size=[512,512]"
            )
        self.max_class_share = max_class_share

    def __call__(
        self,
        image: np.ndarray,
        label: np.ndarray,
        rng: np.random.Generator,
        class_id: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray, list[Region]]:
        """Cuts the augmented crop out of an H×W×3 uint8 RGB image and its H×W label.

        Args:
            image: H×W×3 uint8 RGB.
            label: H×W uint8.
            rng: Draws scale, place, mirroring and augmentations.
            class_id: While the resized label of the crop lacks this class, another place is drawn,
                up to ten in all; augmentations may still cover it. None takes any crop.

        Returns:
            The crop (uint8 RGB, not normalised), its label, and the padding in it.
        """
        scale = rng.uniform(self.scale_range[0], self.scale_range[1])
        scaled = [max(1, int(scale * side)) for side in label.shape]
        crop = self.crop_size or tuple(scaled)
        shown = tuple(map(min, scaled, crop))
        lengths = [
            max(1, round(part * side / whole))
            for side, whole, part in zip(label.shape, scaled, shown, strict=True)
        ]
        source = self._place(label, lengths, shown, rng, class_id)
        mirrored = rng.uniform() < self.flip
        image = _resized(image[source], shown, cv2.INTER_LINEAR)
        label = _resized(label[source], shown, cv2.INTER_NEAREST_EXACT)
        if mirrored:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        for augment in self.augmentations:
            image, label = augment(image, label, rng)
        if self.augmentations and self.ignore_index != VOID:
            label[label == VOID] = self.ignore_index
        below, beside = (c - s for c, s in zip(crop, shown, strict=True))
        if below or beside:
            sides = (0, below, beside, 0) if mirrored else (0, below, 0, beside)
            image = cv2.copyMakeBorder(image, *sides, cv2.BORDER_REPLICATE)
            label = cv2.copyMakeBorder(label, *sides, cv2.BORDER_CONSTANT, value=self.ignore_index)
        columns = slice(0, beside) if mirrored else slice(shown[1], crop[1])
        padding = [(slice(shown[0], crop[0]), slice(None)), (slice(0, shown[0]), columns)]
        return image, label, padding

    def _place(
        self,
        label: np.ndarray,
        lengths: Sequence[int],
        shown: tuple[int, ...],
        rng: np.random.Generator,
        class_id: int | None,
    ) -> Region:
        """Draws where a crop of these sides, to be resized to `shown`, lies in the image."""
        for _ in range(TRIES):
            starts = [
                int(rng.integers(side - length + 1))
                for side, length in zip(label.shape, lengths, strict=True)
            ]
            rows, columns = map(slice, starts, np.add(starts, lengths).tolist())
            part = label[rows, columns]
            mixed = self.max_class_share is None or self._is_mixed(part)
            if mixed and (class_id is None or _holds(part, shown, class_id)):
                break
        return rows, columns

    def _is_mixed(self, label: np.ndarray) -> bool:
        """Whether every class covers less than `max_class_share` of the valid pixels."""
        counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        counts[self.ignore_index] = 0
        return bool(counts.max() < self.max_class_share * counts.sum())


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


def _holds(label: np.ndarray, size: tuple[int, ...], class_id: int) -> bool:
    """Whether the class is in the label once resized, which leaves out pixels."""
    return bool((_resized(label, size, cv2.INTER_NEAREST_EXACT) == class_id).any())


def _resized(array: np.ndarray, size: tuple[int, ...], interpolation: int) -> np.ndarray:
    """A copy of `size` (H, W)."""
    if array.shape[:2] == size:
        return array.copy()
    return cv2.resize(array, size[::-1], interpolation=interpolation)
