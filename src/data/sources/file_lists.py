"""Split lists, folders indexed by stem, and the pairing of images and labels."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from unicodedata import normalize

import numpy as np

from src.utils.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".pgm", ".gif", ".mat")

Files = Mapping[str, list[Path]]
"""Files by stem, in Unicode's composed form; more than one where stems are equal."""


class Annotation(Protocol):
    """A label that is drawn when a dataset is prepared; otherwise it acts as a path of its file."""

    def __fspath__(self) -> str: ...

    def read_bytes(self) -> bytes:
        """All data that the drawing depends on, for the fingerprint of a conversion."""

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """The numbers of a label file (see `LabelRules`), H×W.

        Args:
            size: Height and width of the image, unless the annotation states its own.

        Raises:
            Problem: It cannot be drawn, or has a label that stands for no class.
        """


Labels = Mapping[str, Sequence[Path | Annotation]]
"""Likewise, of labels."""


@dataclass(frozen=True)
class Sample:
    """One image file and its label, a file or drawn; `name` is unique within a split."""

    name: str
    image: Path
    label: Path | Annotation | None


@dataclass(frozen=True)
class Entry:
    """An entry of a split list: a name, with the files if they are listed."""

    name: str
    image: Path | None = None
    label: Path | None = None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without surrounding blanks; empty lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}); replace it") from error
    return [line.strip() for line in lines if line.strip()]


def read_list(path: Path, root: Path, images: Files) -> list[Entry]:
    """The entries of a split list.

    A line is a name, an image, or an image and its label, separated by a tab or a blank. Files
    are given by name or by path: absolute, or below `root`, of which leading folders may be those
    of another machine. Lines that begin with # are passed over.

    Raises:
        UserError: A line has more columns, can be read in two ways, or lists a label that is not
            there.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    return [_entry(line, path, root, images) for line in lines]


def index_files(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files of a folder with one of the extensions (in any case), by stem.

    Raises:
        UserError: There are none.
    """
    files: dict[str, list[Path]] = {}
    others: set[str] = set()
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in suffixes:
            files.setdefault(normalize("NFC", path.stem), []).append(path)
        else:
            others.add(f"folder {path.name}" if path.is_dir() else f"*{path.suffix}")
    if not files:
        there = f"; there: {few(others)}" if others else ""
        raise UserError(f"{folder}: holds no files {' '.join(suffixes)}{there}")
    return files


def pair(entries: Sequence[Entry], images: Files, labels: Labels, origin: Path) -> list[Sample]:
    """Pairs images and labels, sorted by name.

    Args:
        entries: What `origin` lists.
        images, labels: Where files, and annotations, are looked up by name.
        origin: The list or folder, for messages.

    Raises:
        UserError: There are no entries, one comes twice, or has no file, or more than one.
    """
    if not entries:
        raise UserError(f"{origin}: no sample in it; expected at least one name")
    counts = Counter(entry.image or entry.name for entry in entries)
    twice = [str(name) for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{origin}: names listed twice: {few(twice)}; remove the repetitions")
    shared = Counter(entry.name for entry in entries)
    samples = []
    for kind, files in (("image", images), ("label", labels)):
        named = [entry.name for entry in entries if getattr(entry, kind) is None]
        missing = [name for name in named if name not in files]
        if missing:
            raise UserError(
                f"{origin}: {len(missing)} of {len(entries)} samples have no {kind} file: "
                f"{few(missing)}{_near(min(missing), files, images)}; add the files, or list only "
                "names that have one"
            )
        several = [path for name in named for path in files[name] if len(files[name]) > 1]
        ambiguous = [Path(path).name for path in several]
        if ambiguous:
            raise UserError(
                f"{origin}: {kind} files that differ in the extension or the Unicode form alone: "
                f"{few(ambiguous)}; remove all but one of each name"
            )
    for entry in entries:
        image = entry.image or images[entry.name][0]
        label = entry.label or labels[entry.name][0]
        unique = shared[entry.name] == 1
        name = entry.name if unique else f"{image.parent.name}/{entry.name}"
        samples.append(Sample(name, image, label))
    return sorted(samples, key=lambda sample: sample.name)


def few(names: Iterable[str], shown: int = 5) -> str:
    """The first names, and how many there are."""
    names = sorted(names)
    more = f", … ({len(names)} in all)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _entry(line: str, origin: Path, root: Path, images: Files) -> Entry:
    single = _find_image(line, root, images)
    if single is not None:
        return single
    columns = [column.strip() for column in line.split("\t") if column.strip()]
    if len(columns) > 1:
        ways = [(columns[0], columns[1])] * (len(columns) == 2)
    else:  # names may hold blanks
        words = line.split(" ")
        ways = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
        columns = line.split()
    pairs = set()
    for first, second in ways:
        image, label = _find_image(first.strip(), root, images), _find_path(second.strip(), root)
        if image is not None and label is not None:
            pairs.add(Entry(image.name, image.image, label))
    if len(pairs) == 1:
        return pairs.pop()
    expected = "expected a name, or an image and its label, separated by a tab or a blank"
    if pairs:
        raise UserError(f"{origin}: the line '{line}' can be read in two ways; put a tab there")
    if len(columns) > 2:
        raise UserError(f"{origin}: {len(columns)} columns in the line '{line}'; {expected}")
    if len(columns) == 2 and _find_image(columns[0], root, images) is not None:
        raise UserError(
            f"{origin}: the line '{line}' lists a label {columns[1]}, which is not below {root}; "
            "add it, or list the image's name alone"
        )
    return Entry(line)  # reported with the other missing files


def _find_image(text: str, root: Path, images: Files) -> Entry | None:
    name = normalize("NFC", text)
    if name in images:
        return Entry(name)
    path = PurePosixPath(name)
    if path.name == name:
        exact = [p for p in images.get(path.stem, ()) if normalize("NFC", p.name) == name]
        if exact or (path.stem in images and path.suffix.lower() in LABEL_SUFFIXES):
            return Entry(path.stem, *exact[:1])
    found = _find_path(text, root)
    if found is not None and found.suffix.lower() in IMAGE_SUFFIXES:
        return Entry(normalize("NFC", found.stem), found)
    return None


def _find_path(text: str, root: Path) -> Path | None:
    """The file at a path, or at the longest end of it, of two parts at least, below `root`.

    What is left off of a path has no blanks.
    """
    for form in dict.fromkeys((text, normalize("NFC", text), normalize("NFD", text))):
        for spelled in dict.fromkeys((form, form.replace("\\", "/"))):
            if Path(spelled).is_absolute() and Path(spelled).is_file():
                return Path(spelled)
            parts = [part for part in PurePosixPath(spelled).parts if part != "/"]
            for start in range(max(len(parts) - 1, 1)):
                if " " in "".join(parts[:start]):  # two columns rather than a path
                    break
                if root.joinpath(*parts[start:]).is_file():
                    return root.joinpath(*parts[start:])
    return None


def _near(name: str, files: Labels, images: Files) -> str:
    """A clause on the file that may be meant by a name that has none."""
    for folder in {Path(path).parent for paths in files.values() for path in paths}:
        same = [path for path in folder.iterdir() if normalize("NFC", path.stem) == name]
        unread = [path.name for path in same if path not in images.get(name, ())]
        if unread:
            return f" ({min(unread)} is there, but {Path(min(unread)).suffix} files are not read)"
    free = [stem for stem in files if stem not in images] if files is not images else list(files)
    alike = [stem for stem in sorted(free, key=len) if name.casefold() in stem.casefold()]
    alike += difflib.get_close_matches(name, free, n=1)
    if not alike:
        return ""
    file = Path(files[alike[0]][0])
    return (
        f" (is it {file.parent.name}/{file.name}? Then rename the files, or list both files of a "
        "sample on a line)"
    )
