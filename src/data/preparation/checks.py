"""Checks of an image and its label, and their encoding for MindRecord."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.data.images import decode_whole_image, exif_orientation
from src.data.preparation.labels import Color, Label, LabelRules, ids_of_numbers, read_label
from src.data.preparation.problem import Problem, read_bytes
from src.data.sources.file_lists import Sample
from src.data.transforms import decode_label

# Signatures of files that training decodes as they are: JPEG, PNG
_KEPT = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class ValidatedSample:
    """A sample that has passed all checks, encoded for MindRecord.

    Attributes:
        data: The image, a JPEG or PNG file's bytes.
        label: The class ids, an 8-bit grey PNG file's bytes.
        size: Height and width of both.
        counts: Pixels of every label id, 256 int64.
        stored, colors: Numbers of the label file, see `Label`.
        rotated: The image has an EXIF orientation, which is not applied.
    """

    name: str
    data: bytes
    label: bytes
    size: tuple[int, int]
    counts: np.ndarray
    stored: Mapping[int, int]
    colors: Mapping[int, Color]
    rotated: bool


def check_files(sample: Sample, rules: LabelRules) -> ValidatedSample:
    """Reads the files of a sample.

    JPEG and PNG images are kept byte for byte, others become PNG; either way nothing is lost.

    Raises:
        Problem: A file is missing, empty or cannot be decoded, or the two do not fit together.
    """
    encoded = read_bytes(sample.image)
    image = _decode_image(encoded, sample.image)
    height, width = image.shape[:2]
    if sample.label is None:
        raise Problem("missing file", sample.image, "no label belongs to it")
    file = Path(sample.label)
    if isinstance(sample.label, Path):
        label = read_label(file, rules)
    else:
        label = ids_of_numbers(sample.label.draw((height, width)), rules, file)
    rotated = _check_size(label.ids, (height, width), encoded, file)
    if not encoded.startswith(_KEPT):
        encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    stored = cv2.imencode(".png", label.ids)[1].tobytes()
    return _validated(sample.name, encoded, stored, label, rotated)


def check_row(name: str, data: bytes, label: bytes, rules: LabelRules, row: str) -> ValidatedSample:
    """Checks a row of a MindRecord file, decoded as in training.

    Raises:
        Problem: An image cannot be decoded, or the two do not fit together.
    """
    image = _decode_image(data, row)
    try:
        with Image.open(io.BytesIO(label)) as opened:
            mode = opened.mode
        numbers = decode_label(label)
    except (OSError, ValueError, SyntaxError, cv2.error):
        mode, numbers = "", None
    if numbers is None:
        raise Problem("unreadable label", row, "expected the bytes of an 8-bit grey PNG")
    if mode != "L":
        raise Problem(
            "unreadable label",
            row,
            f"an image of mode {mode}, which training would read as luminance; expected class ids "
            "in an 8-bit grey PNG; convert the original files with dataset=folder",
        )
    rotated = _check_size(numbers, image.shape[:2], data, row)
    return _validated(name, data, label, ids_of_numbers(numbers, rules, row), rotated)


def checked_row(name: str, data: bytes, label: bytes) -> ValidatedSample:
    """A row that has been checked when its file was prepared; the image is not decoded."""
    ids = decode_label(label)
    rotated = exif_orientation(data) != 1
    return _validated(name, data, label, Label(ids, {}), rotated)


def _validated(
    name: str, data: bytes, encoded: bytes, label: Label, rotated: bool
) -> ValidatedSample:
    height, width = label.ids.shape
    counts = np.bincount(label.ids.ravel(), minlength=256)
    size = (height, width)
    return ValidatedSample(name, data, encoded, size, counts, label.stored, label.colors, rotated)


def _decode_image(encoded: bytes, file: Path | str) -> np.ndarray:
    try:
        return decode_whole_image(encoded)
    except ValueError as error:
        raise Problem("undecodable image", file, str(error)) from error


def _check_size(ids: np.ndarray, size: tuple[int, ...], encoded: bytes, file: Path | str) -> bool:
    """Whether the image has an EXIF orientation; the label must fit it as stored."""
    orientation = exif_orientation(encoded)
    if ids.shape != size:
        detail = f"image {size[0]}×{size[1]}, label {ids.shape[0]}×{ids.shape[1]} (height×width)"
        if orientation >= 5 and ids.shape == size[::-1]:
            detail += "; the image is stored lying and EXIF turns it, which is not followed: turn "
            detail += "the image's pixels"
        raise Problem("sizes differ", file, detail)
    if orientation != 1 and (orientation < 5 or size[0] == size[1]):
        raise Problem(
            "orientation unclear",
            file,
            "EXIF turns or mirrors its image, and the label fits either way; if it is drawn on the "
            "pixels as stored, remove the EXIF orientation, else turn the image's pixels",
        )
    return orientation != 1
