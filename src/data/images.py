"""Finding and decoding of users' image files, with checks for damaged ones."""

import glob
import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.sources.file_lists import IMAGE_SUFFIXES
from src.data.transforms import decode_image
from src.utils.errors import UserError
from src.utils.video import VIDEO_SUFFIXES, Video

log = logging.getLogger(__name__)

_ORIENTATION = 0x0112  # EXIF


def find_files(path: str | Path) -> list[Path]:
    """The file at `path`, the images and videos directly in it, or those a pattern matches.

    Sorted by name, hidden files left out; a pattern has `*` or `?` in it, as
    `photos/**/street_*.jpg`.

    Raises:
        UserError: Nothing there, no image or video in the folder, or two files of one stem, whose
            predictions would have one name.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = list(path.iterdir())
    else:
        pattern = str(path).replace("[", "[[]")  # a bracket is part of a name
        candidates = [Path(name) for name in glob.glob(pattern, recursive=True)]
        if not candidates:
            raise UserError(
                f"input={path}: no such file; give an image, a video, a folder or a pattern"
            )
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    shown = (p for p in candidates if not p.name.startswith("."))
    found = sorted(p for p in shown if p.suffix.lower() in known)
    if not found:
        raise UserError(f"input={path}: holds no image or video ({' '.join(known)})")
    stems: dict[str, Path] = {}
    for file in found:
        if file.stem in stems:
            raise UserError(
                f"input={path}: {stems[file.stem].name} and {file.name} share a stem, and so "
                "would their predictions; rename one"
            )
        stems[file.stem] = file
    return found


def read_file(path: Path) -> np.ndarray | Video:
    """The image or video in a file, distinguished by the file name's extension.

    Raises:
        UserError: It cannot be read.
    """
    return Video(path) if path.suffix.lower() in VIDEO_SUFFIXES else read_image(path)


def read_image(path: Path) -> np.ndarray:
    """Reads an image as H×W×3 uint8 RGB.

    Raises:
        UserError: Unreadable, or not an image.
    """
    try:
        encoded = path.read_bytes()
        image = decode_whole_image(encoded)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an image: {error}") from error
    if exif_orientation(encoded) != 1:
        log.warning("%s: EXIF would turn it; taken as stored, as in training", path)
    return image


def exif_orientation(encoded: bytes) -> int:
    """How EXIF would turn or mirror an image: 1 is not at all, 5 to 8 swap height and width."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does no harm: OpenCV has decoded the image
        return 1


def decode_whole_image(encoded: bytes) -> np.ndarray:
    """Decodes an image file as `decode_image` does, but refuses a truncated one.

    Raises:
        ValueError: It cannot be decoded as a whole, or has too many pixels.
    """
    try:
        Image.open(io.BytesIO(encoded)).load()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels; cut it into tiles"
        ) from error
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError for a broken PNG
        raise ValueError("truncated, damaged, or not an image; replace it") from error
    return decode_image(encoded)
