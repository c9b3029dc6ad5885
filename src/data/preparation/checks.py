"""Whether an image and its label can be trained on, and the bytes that go into MindRecord."""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.data.preparation.labels import read_label
from src.data.sources.file_lists import Sample
from src.data.transforms import decode_label
from src.utils.errors import UserError

# 8-bit files that training decodes as they are; JPEG, PNG
_KEPT = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_ORIENTATION = 0x0112  # EXIF: 1 is upright; 5 to 8 swap height and width


class Problem(Exception):
    """Why a sample cannot be trained on.

    Attributes:
        kind: One of a few phrases, by which problems are grouped.
        file: The file's path, or what row of a MindRecord file it is.
        detail: What was found and what was expected.
        ids: The label ids that no class has.
    """

    def __init__(self, kind: str, file: Path | str, detail: str, ids: tuple[int, ...] = ()) -> None:
        super().__init__(f"{file}: {kind}: {detail}")
        self.kind, self.file, self.detail, self.ids = kind, file, detail, ids


@dataclass(frozen=True)
class LabelRules:
    """How label files are read (see `read_label`), and what ids they may hold."""

    num_classes: int
    ignore_index: int = 255
    palette: np.ndarray | None = None
    void_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A sound sample.

    Attributes:
        data: The image, a JPEG or PNG file's bytes.
        label: The class ids, an 8-bit grey PNG file's bytes.
        size: Height and width of both.
        counts: Pixels of every label id, 256 int64.
        turned: The image says by EXIF that it is to be turned; it is not.
    """

    name: str
    data: bytes
    label: bytes
    size: tuple[int, int]
    counts: np.ndarray
    turned: bool


def check_files(sample: Sample, rules: LabelRules) -> Pair:
    """Reads the files of a sample.

    JPEG and PNG images are kept byte for byte, others become PNG; either way nothing is lost.

    Raises:
        Problem: A file is missing, empty or cannot be decoded, or the two do not fit together.
    """
    encoded = _read(sample.image)
    image = _decode_image(encoded, sample.image)
    if sample.label is None:
        raise Problem("missing file", sample.image, "no label belongs to it")
    _read(sample.label)
    try:
        ids = read_label(
            sample.label, rules.palette, rules.num_classes, rules.ignore_index, rules.void_ids
        )
    except UserError as error:
        detail = str(error).removeprefix(f"{sample.label}: ")
        raise Problem("unreadable label", sample.label, detail) from error
    turned = _is_turned(encoded)
    counts = _check_label(ids, image.shape[:2], turned, rules, sample.label)
    if not encoded.startswith(_KEPT):
        encoded = cv2.imencode(".png", image)[1].tobytes()
    label = cv2.imencode(".png", ids)[1].tobytes()
    return Pair(sample.name, encoded, label, ids.shape, counts, turned)


def check_row(name: str, data: bytes, label: bytes, rules: LabelRules, row: str) -> Pair:
    """Looks at a row of a MindRecord file with the eyes of the training.

    Raises:
        Problem: An image cannot be decoded, or the two do not fit together.
    """
    image = _decode_image(data, row)
    try:
        with Image.open(io.BytesIO(label)) as opened:
            mode = opened.mode
        ids = decode_label(label)
    except (OSError, ValueError, SyntaxError, cv2.error):
        mode, ids = "", None
    if ids is None:
        raise Problem("unreadable label", row, "expected the bytes of an 8-bit grey PNG")
    if mode != "L":
        raise Problem(
            "unreadable label",
            row,
            f"an image of mode {mode}, which training would read as luminance; expected class ids "
            "in an 8-bit grey PNG; convert the original files with dataset=folder",
        )
    turned = _is_turned(data)
    counts = _check_label(ids, image.shape[:2], turned, rules, row)
    return Pair(name, data, label, ids.shape, counts, turned)


def _read(path: Path) -> bytes:
    try:
        encoded = path.read_bytes()
    except FileNotFoundError as error:
        raise Problem("missing file", path, "no such file") from error
    except OSError as error:
        raise Problem("unreadable file", path, str(error.strerror)) from error
    if not encoded:
        raise Problem("empty file", path, "0 bytes")
    return encoded


def _decode_image(encoded: bytes, file: Path | str) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Problem("undecodable image", file, "truncated, damaged, or not an image")
    if image.dtype != np.uint8:
        raise Problem("undecodable image", file, f"{image.dtype} values; expected 8 bits a channel")
    return image


def _is_turned(encoded: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # a damaged EXIF block hinders nobody: OpenCV has decoded the image
        return False


def _check_label(
    ids: np.ndarray, size: tuple[int, int], turned: bool, rules: LabelRules, file: Path | str
) -> np.ndarray:
    if ids.shape != size:
        detail = f"image {size[0]}×{size[1]}, label {ids.shape[0]}×{ids.shape[1]} (height×width)"
        if turned and ids.shape == size[::-1]:
            detail += "; the image is stored lying and EXIF turns it, which is not followed: turn "
            detail += "the image's pixels"
        raise Problem("sizes differ", file, detail)
    counts = np.bincount(ids.ravel(), minlength=256)
    allowed = np.arange(256) < rules.num_classes
    allowed[np.arange(256) == rules.ignore_index] = True
    bad = np.flatnonzero(counts * ~allowed)
    if len(bad):
        shown = ", ".join(str(i) for i in bad[:20]) + ", …" * (len(bad) > 20)
        raise Problem(
            "label ids of no class",
            file,
            f"{shown}; expected 0 to {rules.num_classes - 1} and {rules.ignore_index}",
            tuple(bad.tolist()),
        )
    return counts
