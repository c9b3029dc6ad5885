"""Reading of label files as class ids. Nothing is guessed.

A file holds numbers (grey values, palette indices, the matrix of a `.mat` file), colours, or both,
as a palette image does. These decide which of them are the class ids:

    dataset.source.ids      the numbers, those of the classes in their order
    dataset.source.palette  the colours; in grey files the numbers, unless they fit as colours alone
    neither                 the numbers; in files with colours only, VOC's colours

A file that cannot be read in any way, or in two that disagree, is a `Problem`.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from src.data.preparation.problem import Problem, read_bytes
from src.utils.errors import UserError, error_summary
from src.utils.palette import voc_palette

Color = tuple[int, int, int]
_UNREADABLE = "unreadable label"
_NAME_COLORS = (
    "save class ids as an 8-bit grey PNG, or give the colours of the classes, then those of void, "
    "by dataset.source.palette"
)
_NUMBERS = ("1", "L", "LA", "P", "I", "I;16", "I;16B", "I;16L")  # modes
_PGM = re.compile(rb"P[2356](?:\s+|#.*\n)+\d+(?:\s+|#.*\n)+\d+(?:\s+|#.*\n)+(\d+)")
_PHOTOMETRIC, _BITS = 262, 258  # TIFF tags


@dataclass(frozen=True)
class LabelRules:
    """The meaning of the numbers and colours of label files.

    Args:
        num_classes: Class ids are 0 to `num_classes` - 1.
        ignore_index: The id of void, and the number that stands for it in the files.
        palette: N×3 uint8 RGB: the colours of the classes, more rows are colours of void. None
            takes VOC's.
        void_ids: Other numbers that stand for void.
        ids: The numbers that stand for the classes, in their order; None takes the class ids.
        prefix: Put before the keys that an error suggests: `dataset=folder ` where the layout does
            not have these keys.

    Raises:
        UserError: They contradict each other.
    """

    num_classes: int
    ignore_index: int = 255
    palette: np.ndarray | None = None
    void_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] | None = None
    prefix: str = ""

    def key(self, name: str, numbers: Iterable[int]) -> str:
        """An override that repairs the reading, such as `dataset.source.ids=[1,2]`."""
        return f"{self.prefix}dataset.source.{name}={_listed(numbers)}"

    def __post_init__(self) -> None:
        if self.palette is not None and len(self.palette) < self.num_classes:
            raise UserError(
                f"dataset.source.palette: {len(self.palette)} colours for {self.num_classes} "
                "classes; expected one for each, then those of void"
            )
        if self.ids is None:
            return
        key = f"dataset.source.ids={_listed(self.ids)}"
        if len(self.ids) != self.num_classes:
            raise UserError(
                f"{key}: {len(self.ids)} numbers for {self.num_classes} classes; expected one for "
                "each, in their order"
            )
        if shared := set(self.ids) & set(self.void_ids):
            raise UserError(
                f"{key}: {min(shared)} is in dataset.source.void_ids, too; remove it from one"
            )
        if self.ignore_index < self.num_classes:
            raise UserError(
                f"dataset.ignore_index={self.ignore_index}: with dataset.source.ids it would be "
                f"the class of the stored {self.ids[self.ignore_index]}; set "
                "dataset.ignore_index=255, and list what means void in dataset.source.void_ids"
            )

    @cached_property
    def id_of_number(self) -> dict[int, int]:
        """Class id or `ignore_index`, by the number in a file."""
        void = dict.fromkeys((self.ignore_index, *self.void_ids), self.ignore_index)
        if self.ids is None:
            return {**{i: i for i in range(self.num_classes)}, **void}
        return {**void, **{number: i for i, number in enumerate(self.ids)}}

    @cached_property
    def id_of_color(self) -> dict[Color, int]:
        """Class id or `ignore_index`, by RGB colour."""
        colors = self.palette
        if colors is None:
            vocs = voc_palette()
            colors = np.vstack([vocs[: min(self.num_classes, 255)], vocs[255:]])
        ids = [i if i < self.num_classes else self.ignore_index for i in range(len(colors))]
        return dict(zip(map(tuple, colors.tolist()), ids, strict=True))


@dataclass(frozen=True)
class Label:
    """A label file's class ids.

    Attributes:
        ids: H×W uint8.
        stored: Pixels of every number in the file; empty where colours were read.
        colors: Of a palette image read by its numbers, the colour of each.
    """

    ids: np.ndarray
    stored: Mapping[int, int]
    colors: Mapping[int, Color] = field(default_factory=dict)


def read_label(path: Path, rules: LabelRules) -> Label:
    """Reads a label file.

    Args:
        path: A lossless image, or one of SBD's `.mat` files.
        rules: The meaning of its numbers and colours.

    Raises:
        Problem: It cannot be decoded, or a number or colour in it has no class, or two.
    """
    encoded = read_bytes(path)
    if path.suffix.lower() == ".mat":
        return ids_of_numbers(_read_mat(encoded, path), rules, path)
    image = _open(encoded, path)
    if image.mode in ("RGB", "RGBA"):
        return Label(_ids_of_pixels(image, rules, path), {})
    numbers, colors = _numbers(image, encoded)
    by_palette = rules.palette is not None and rules.ids is None
    if colors and image.format == "GIF" and image.mode == "P" and not by_palette:
        shown = ",".join(
            _listed(c) for c in sorted({colors[n] for n in _histogram(numbers)}, key=sum)
        )
        without = "" if rules.ids is None else " without dataset.source.ids"
        raise Problem(
            _UNREADABLE,
            path,
            "a GIF has its colours in any order; say which are the classes', in their order, as "
            f"dataset.source.palette=[{shown}]{without}, or save class ids as an 8-bit grey PNG",
        )
    if rules.ids is not None or not colors:
        return ids_of_numbers(numbers, rules, path)
    stored = _histogram(numbers)
    by_number = {n: rules.id_of_number.get(n) for n in stored}
    by_color = {n: rules.id_of_color.get(colors[n]) if n in colors else None for n in stored}
    fits = None not in by_color.values()
    if rules.palette is not None:
        greys = all(len(set(color)) == 1 for color in rules.id_of_color)
        if image.mode == "P" or greys or (fits and None in by_number.values()):
            return Label(_ids_of_entries(image, numbers, colors, by_color, path), {})
        contradicted = fits and by_color != by_number
    else:
        varied = len(set(colors.values())) > 1  # a palette of one colour carries no information
        contradicted = image.mode == "P" and varied and fits and by_color != by_number
    if contradicted:
        number = next(n for n in stored if by_color[n] != by_number[n])
        whose = "VOC's" if rules.palette is None else "dataset.source.palette's"
        raise Problem(
            _UNREADABLE,
            path,
            f"the number {number} has the colour {colors[number]}, which is {whose} for the id "
            f"{by_color[number]}; if colours tell the classes, save the label files as RGB, if "
            f"numbers do, set {rules.key('ids', range(rules.num_classes))}",
        )
    label = ids_of_numbers(numbers, rules, path)
    if image.mode == "P" and rules.palette is None:
        return replace(label, colors={n: colors[n] for n in stored if n in colors})
    return label


def ids_of_numbers(numbers: np.ndarray, rules: LabelRules, file: Path | str) -> Label:
    """The class ids that H×W whole numbers stand for.

    Raises:
        Problem: Some stand for none.
    """
    stored = _histogram(numbers)
    bad = [number for number in stored if number not in rules.id_of_number]
    if bad:
        shown = ", ".join(map(str, bad[:20])) + ", …" * (len(bad) > 20)
        expected = f"0 to {rules.num_classes - 1}" if rules.ids is None else _listed(rules.ids)
        if rules.ignore_index not in (rules.ids or ()):
            expected += f" and {rules.ignore_index}"
        detail = f"{shown}; expected {expected}"
        raise Problem("label ids of no class", file, detail, stored)
    return Label(_replaced(numbers, rules.id_of_number), stored)


def explain_ids(stored: Mapping[int, int], rules: LabelRules) -> str:
    """A hint on what the numbers in label files may mean if they cannot be class ids.

    Args:
        stored: Pixels of every number.
        rules: By which they were read.

    Returns:
        A clause with the repair, or an empty string if there is nothing to say.
    """
    count, void = rules.num_classes, rules.ignore_index
    bad = [number for number in sorted(stored) if number not in rules.id_of_number]
    found = sorted(set(stored) - set(rules.void_ids))
    if not bad:
        if rules.ids is not None or void != 255 or found != [0, 255]:
            return ""
        foreground = f"set {rules.key('ids', found)}" if count == 2 else "name two classes"
        return (
            f"ids are 0 and 255, and 255 is ignore_index: save foreground as 1, or {foreground}; "
            f"if 255 does mean void, set {rules.key('void_ids', [255])}"
        )
    if len(bad) > 1 and _voc_luma().issuperset(bad):
        return (
            "these are the grey values of the VOC class colours: palette images were converted to "
            "greyscale on the way; take the original palette PNGs, whose indices are the class ids"
        )
    ways = []
    if rules.ids is None and bad[0] >= 0:
        numbers = [number for number in found if number != void]
        step = int(np.gcd.reduce(numbers))
        even = [255 * i / (count - 1) for i in range(count)]
        if numbers == list(range(1, count + 1)):
            return f"ids seem to start at 1: set {rules.key('ids', numbers)}"
        if len(found) == count and np.allclose(found, even, rtol=0, atol=1):
            return f"ids seem to be spread over 0 to 255: set {rules.key('ids', found)}"
        if step > 1 and len(numbers) > 2 and numbers[-1] <= step * (count - 1) < 256:
            key = rules.key("ids", range(0, step * count, step))
            ways.append(f"if ids are multiples of {step}, set {key}")
        elif numbers == list(range(count + 1)):
            key = rules.key("ids", range(1, count + 1))
            ways.append(
                f"if ids start at 1 and 0 means void, set {key} dataset.source.void_ids=[0]"
            )
        elif count in (len(numbers), len(found)):
            key = rules.key("ids", numbers if len(numbers) == count else found)
            ways.append(f"if they are the classes in this order, set {key}")
    if len(bad) > 7 and sum(stored[n] for n in bad) < sum(stored.values()) / 4:
        return (
            "numbers between those of the classes come from smooth edges (antialiased, resized, "
            "JPEG): save the masks again without smoothing, each pixel the id of one class"
        )
    if len(bad) <= 3:
        key = rules.key("void_ids", sorted({*rules.void_ids, *bad}))
        ways.append(f"if {_listed(bad)} means void, set {key}")
    if rules.ids is None and bad == list(range(count, bad[-1] + 1)) and bad[-1] < 255:
        ways.append(f"if there are {bad[-1] + 1} classes, name all of them")
    return "; ".join(ways)


def _voc_luma() -> set[int]:
    palette = voc_palette().astype(int)[[*range(1, 21), 255]]
    luma = palette @ np.array([299, 587, 114]) / 1000
    return {int(np.floor(v)) for v in luma} | {int(np.floor(v + 0.5)) for v in luma}


def _open(encoded: bytes, path: Path) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded))
        lossy = image.format == "JPEG" or "jpeg" in str(image.info.get("compression"))
        first, stacked = image.size, False
        if getattr(image, "n_frames", 1) > 1:  # of another size: overviews of a GeoTIFF
            image.seek(1)
            stacked = image.size == first
            image.seek(0)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = error_summary(error) or type(error).__name__
        detail = f"cannot be decoded ({what}); replace the label file"
        raise Problem(_UNREADABLE, path, detail) from error
    if lossy:
        detail = (
            "a JPEG cannot hold labels, its values are changed by compression; save class ids as "
            "an 8-bit grey or palette PNG"
        )
    elif stacked:
        detail = f"{image.n_frames} images in one file; expected one"
    elif image.mode not in ("RGB", "RGBA", *_NUMBERS):
        detail = (
            f"label image of mode {image.mode}; expected class ids in a palette or grey image, or "
            "RGB class colours; save class ids as an 8-bit grey PNG"
        )
    elif image.mode in ("RGB", "RGBA", "LA") and _white(image, encoded) != 255:
        detail = (
            f"colours or alpha of {_white(image, encoded).bit_length()} bits a channel; expected "
            "8; save class ids as an 8-bit grey PNG"
        )
    elif image.mode in ("RGBA", "LA") and image.getextrema()[-1][0] < 255:
        detail = (
            "label image with transparent pixels; expected class colours or ids alone, save it "
            "without an alpha channel"
        )
    elif image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:
        detail = "a TIFF whose 0 is white (MINISWHITE); save class ids as an 8-bit grey PNG"
    else:
        return image
    raise Problem(_UNREADABLE, path, detail)


def _numbers(image: Image.Image, encoded: bytes) -> tuple[np.ndarray, dict[int, Color] | None]:
    """The numbers as they are in the file, and the colours that they are shown in if 8-bit."""
    if image.mode == "P":
        entries = np.reshape(image.getpalette("RGB"), (-1, 3)).tolist()
        return np.array(image), {i: tuple(color) for i, color in enumerate(entries)}
    numbers = np.array(image.getchannel("L") if image.mode == "LA" else image).astype(np.int64)
    eight = image.mode in ("L", "LA", "1")
    white = 1 if image.mode == "1" else _white(image, encoded)
    if image.mode != "1" and (eight or image.format == "PPM"):  # Pillow has stretched them
        top = 255 if eight else 65535
        numbers = (numbers * white + top // 2) // top
    if not eight:
        return numbers, None
    return numbers.astype(np.uint8), {n: (round(n * 255 / white),) * 3 for n in range(white + 1)}


def _white(image: Image.Image, encoded: bytes) -> int:
    """The largest value of a channel that the file can hold."""
    if image.format == "PNG":
        return 2 ** encoded[24] - 1  # after signature 8, chunk head 8, width 4, height 4
    if image.format == "TIFF":
        return 2 ** image.tag_v2.get(_BITS, (1,))[0] - 1
    if image.format == "PPM" and (head := _PGM.match(encoded)):
        return int(head[1])
    return 255


def _read_mat(encoded: bytes, path: Path) -> np.ndarray:
    try:
        file = io.BytesIO(encoded)
        return np.array(loadmat(file, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"])
    except Exception as error:  # a damaged file may raise any error in loadmat
        what = error_summary(error) or type(error).__name__
        raise Problem(
            _UNREADABLE,
            path,
            f"no GTcls.Segmentation can be read ({what}); expected a file of SBD's folder cls",
        ) from error


def _ids_of_entries(
    image: Image.Image,
    numbers: np.ndarray,
    colors: Mapping[int, Color],
    by_color: Mapping[int, int | None],
    path: Path,
) -> np.ndarray:
    """The ids of an image with one colour a number."""
    alpha = image.info.get("transparency", b"") if image.mode == "P" else b""
    if isinstance(alpha, int):
        alpha = b"\xff" * alpha + b"\0"
    if any(alpha[n] < 255 for n in by_color if n < len(alpha)):
        raise Problem(
            _UNREADABLE,
            path,
            "label image with transparent pixels; expected class colours alone, save it as RGB",
        )
    known = {n: id_ for n, id_ in by_color.items() if id_ is not None}
    if unknown := [n for n in by_color if n not in known]:
        where = np.isin(numbers, unknown)
        first = colors.get(int(numbers[where][0]), "missing in the palette")
        raise _unknown_color(path, where, first, len(unknown))
    return _replaced(numbers, known)


def _ids_of_pixels(image: Image.Image, rules: LabelRules, path: Path) -> np.ndarray:
    """The ids of an image of colours."""
    pixels = np.array(image)[..., :3]
    colors = np.array(list(rules.id_of_color))
    ids = np.array(list(rules.id_of_color.values()), np.uint8)
    codes = _codes(colors)
    order = np.argsort(codes)
    wanted = _codes(pixels)
    index = order[np.searchsorted(codes, wanted, sorter=order).clip(max=len(codes) - 1)]
    unknown = codes[index] != wanted
    if unknown.any():
        first = tuple(pixels[unknown][0].tolist())
        greys = np.unique(pixels) if (pixels == pixels[..., :1]).all() else None
        if greys is not None and rules.palette is None and len(greys) == rules.num_classes:
            palette = ",".join(_listed([int(grey)] * 3) for grey in greys)
            repair = (
                f"if these are the classes in this order, set dataset.source.palette=[{palette}]"
            )
        elif greys is not None:
            repair = "its channels are equal: if they hold class ids, save one as an 8-bit grey PNG"
        else:
            repair = _NAME_COLORS
        raise _unknown_color(path, unknown, first, len(np.unique(wanted[unknown])), repair)
    return ids[index]


def _unknown_color(
    path: Path, unknown: np.ndarray, first: Color | str, kinds: int, repair: str = _NAME_COLORS
) -> Problem:
    row, column = np.argwhere(unknown)[0]
    if kinds > 7 and unknown.mean() < 0.25:
        repair = (
            "smooth edges (antialiased, resized, JPEG) mix the colours of classes: save the masks "
            "again without smoothing"
        )
    return Problem(
        _UNREADABLE,
        path,
        f"colour {first} at row {row}, column {column} belongs to no class ({unknown.sum()} of "
        f"{unknown.size} pixels, {kinds} such colour{'s' * (kinds > 1)}); {repair}",
    )


def _histogram(numbers: np.ndarray) -> dict[int, int]:
    if numbers.dtype == np.uint8:  # 20 times as fast
        counts = np.bincount(numbers.ravel())
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(numbers, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _replaced(numbers: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    table = np.zeros(max(ids) + 1, np.uint8)
    table[list(ids)] = list(ids.values())
    return table[numbers]


def _codes(colors: np.ndarray) -> np.ndarray:
    colors = colors.astype(np.int32)
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def _listed(values: Iterable[int]) -> str:
    return "[" + ",".join(map(str, values)) + "]"
