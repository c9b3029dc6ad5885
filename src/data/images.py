"""Images to predict on: files and folders outside of any dataset."""

import glob
import io
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.sources import IMAGE_SUFFIXES
from src.data.transforms import decode_image
from src.utils.errors import UserError


def find_images(path: str | Path) -> list[Path]:
    """The image at `path`, those directly in the folder `path`, or those a pattern matches.

    Sorted by name; a pattern has `*` or `?` in it, as `photos/*/street_*.jpg`.

    Raises:
        UserError: Nothing there, no image in the folder, or two images of one stem, whose
            predictions would have one name.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = list(path.iterdir())
    else:
        candidates = [Path(name) for name in glob.glob(str(path))]
        if not candidates:
            raise UserError(f"input={path}: no such file; give an image, a folder or a pattern")
    found = sorted(p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"input={path}: holds no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    stems: dict[str, Path] = {}
    for image in found:
        if image.stem in stems:
            raise UserError(
                f"input={path}: {stems[image.stem].name} and {image.name} share a stem, and so "
                "would their predictions; rename one"
            )
        stems[image.stem] = image
    return found


def read_image(path: Path) -> np.ndarray:
    """Reads an image as H×W×3 uint8 RGB.

    Raises:
        UserError: Unreadable, or not an image.
    """
    try:
        encoded = path.read_bytes()
        Image.open(io.BytesIO(encoded)).load()  # finds a truncated file, which OpenCV does not
        return decode_image(encoded)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow: SyntaxError for a broken PNG
        raise UserError(f"{path}: cannot be read as an image ({error}); replace it") from error
