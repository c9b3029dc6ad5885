"""Label files as class ids, whatever way they are stored."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.io import loadmat

from src.utils.errors import UserError, error_summary
from src.utils.palette import voc_palette

# Pillow stretches grey PNGs of 2 and 4 bits to 0–255
_STRETCH = {2: 85, 4: 17}


def read_label(
    path: Path,
    palette: np.ndarray | None = None,
    num_classes: int | None = None,
    ignore_index: int = 255,
    void_ids: Sequence[int] = (),
) -> np.ndarray:
    """Reads a label file as H×W uint8 class ids; whether they are in range is not checked here.

    Palette images give their indices and grey ones their values, as they are. Colours are
    looked up exactly. SBD's `.mat` files give `GTcls.Segmentation`.

    Args:
        path: An image of 8 bits or fewer a channel, or a `.mat` file.
        palette: N×3 uint8 RGB, read only for coloured masks: rows up to `num_classes` are the
            classes, further ones stand for void. None takes VOC's colours, void among them.
        num_classes: None takes every row of `palette` for a class.
        ignore_index: The id that void gets.
        void_ids: Further ids, as stored in the file, that stand for void.

    Raises:
        UserError: The file cannot be decoded, or does not hold class ids, or has a colour that no
            class has.
    """
    if path.suffix.lower() == ".mat":
        ids = _read_mat(path)
    else:
        image = _open(path)
        if image.mode in ("RGB", "RGBA"):
            ids = _colors_to_ids(path, image, palette, num_classes, ignore_index)
        elif image.mode in ("P", "L", "1"):
            ids = np.array(image).astype(np.uint8)
            if image.mode == "L" and image.format == "PNG":
                ids //= _STRETCH.get(_png_bits(path), 1)
        else:
            raise UserError(
                f"{path}: label image of mode {image.mode}; expected class ids in a palette or "
                "8-bit grey image, or RGB class colours; save class ids as an 8-bit grey PNG"
            )
    if void_ids:
        ids[np.isin(ids, list(void_ids))] = ignore_index
    return ids


def explain_bad_ids(ids: Iterable[int]) -> str:
    """Says how label ids that no class has may have come about: a clause, or an empty string.

    Recognises the grey values of the VOC colours, which is what a palette image turns into when it
    is converted to greyscale.
    """
    palette = voc_palette().astype(int)[[*range(1, 21), 255]]
    luma = palette @ np.array([299, 587, 114]) / 1000
    grey = {int(np.floor(v)) for v in luma} | {int(np.floor(v + 0.5)) for v in luma}
    bad = sorted({int(i) for i in ids})
    if len(bad) > 1 and grey.issuperset(bad):
        return (
            "these are the grey values of the VOC class colours: palette images were converted to "
            "greyscale on the way; take the original palette PNGs, whose indices are the class ids"
        )
    if 0 < len(bad) <= 3:
        listed = ",".join(map(str, bad))
        return f"if void is meant, set dataset.source.void_ids=[{listed}] (dataset=folder, camvid)"
    return ""


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                raise UserError(
                    f"{path}: a JPEG cannot hold labels, its values are changed by compression; "
                    "save class ids as an 8-bit grey or palette PNG"
                )
            image.load()
            return image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such label file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be decoded ({_first_line(error)}); replace the label file"
        ) from error


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # signature 8, chunk head 8, width 4, height 4, bit depth


def _read_mat(path: Path) -> np.ndarray:
    try:
        ids = loadmat(path, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such label file") from error
    except Exception as error:  # loadmat raises whatever a damaged file leads it to
        raise UserError(
            f"{path}: no GTcls.Segmentation can be read ({_first_line(error)}); expected a file of "
            "SBD's folder cls"
        ) from error
    return np.array(ids, np.uint8)


def _colors_to_ids(
    path: Path,
    image: Image.Image,
    palette: np.ndarray | None,
    num_classes: int | None,
    ignore_index: int,
) -> np.ndarray:
    pixels = np.array(image)  # H×W×3 or H×W×4
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise UserError(
            f"{path}: label image with transparent pixels; expected class colours alone, save it "
            "without an alpha channel"
        )
    if palette is None:
        full = voc_palette()
        palette = np.vstack([full[: min(num_classes or 21, 255)], full[255:]])
        num_classes = len(palette) - 1
    ids = np.full(len(palette), ignore_index, np.uint8)
    ids[:num_classes] = np.arange(len(ids[:num_classes]))
    codes = _codes(palette)
    order = np.argsort(codes, kind="stable")
    wanted = _codes(pixels[..., :3])
    index = order[np.searchsorted(codes, wanted, sorter=order).clip(max=len(codes) - 1)]
    unknown = codes[index] != wanted
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        color = tuple(int(v) for v in pixels[row, column, :3])
        raise UserError(
            f"{path}: colour {color} at row {row}, column {column} belongs to no class "
            f"({unknown.sum()} of {unknown.size} pixels, {len(np.unique(wanted[unknown]))} such "
            "colours); save class ids as an 8-bit PNG, or give the class colours by "
            "dataset.source.palette"
        )
    return ids[index]


def _codes(colors: np.ndarray) -> np.ndarray:
    colors = colors.astype(np.int32)
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def _first_line(error: Exception) -> str:
    return error_summary(error) or type(error).__name__
