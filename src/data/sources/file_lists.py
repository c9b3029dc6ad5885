"""Names and files: split lists, folders indexed by stem, and the pairs that follow from both."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from src.utils.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".pgm", ".mat")

Files = Mapping[str, list[Path]]
"""Files by stem; more than one where only the extension tells them apart."""


@dataclass(frozen=True)
class Sample:
    """One image file and its label file; `name` is unique within a split."""

    name: str
    image: Path
    label: Path | None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without surrounding blanks; empty lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}); replace it") from error
    return [line.strip() for line in lines if line.strip()]


def read_list(path: Path, images: Files) -> list[str]:
    """The names in a split list; a line is a name, a path, or several of which the first counts."""
    return [_name(line, images) for line in read_lines(path)]


def index_files(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files of a folder with one of the extensions (in any case), by stem."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            files.setdefault(path.stem, []).append(path)
    return files


def pair(names: Sequence[str], images: Files, labels: Files, origin: object) -> list[Sample]:
    """Pairs the named images and labels, sorted by name.

    Args:
        names: What `origin` lists.
        images, labels: Where to look them up.
        origin: The list or folder the names come from, for messages.

    Raises:
        UserError: There are no names, a name comes twice, or it has no file, or more than one.
    """
    if not names:
        raise UserError(f"{origin}: no sample in it; expected at least one name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{origin}: names listed twice: {few(twice)}; remove the repetitions")
    for kind, files in (("image", images), ("label", labels)):
        missing = [name for name in names if name not in files]
        if missing:
            raise UserError(
                f"{origin}: {len(missing)} of {len(names)} samples have no {kind} file: "
                f"{few(missing)}; add the files, or list only names that have one"
            )
        ambiguous = [path.name for name in names for path in files[name] if len(files[name]) > 1]
        if ambiguous:
            raise UserError(
                f"{origin}: {kind} files that differ in the extension alone: {few(ambiguous)}; "
                "remove all but one of each name"
            )
    return [Sample(name, images[name][0], labels[name][0]) for name in sorted(names)]


def few(names: Iterable[str], shown: int = 5) -> str:
    """The first names, and how many there are."""
    names = sorted(names)
    more = f", … ({len(names)} in all)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _name(line: str, images: Files) -> str:
    first = line.split()[0]
    for text in (line, first):  # names may hold blanks
        for name in (text, PurePosixPath(text).name, _stem(text)):
            if name in images:
                return name
    return _stem(first)


def _stem(text: str) -> str:
    path = PurePosixPath(text)
    # Only known extensions: "frame.0001" is a whole name
    return path.stem if path.suffix.lower() in LABEL_SUFFIXES else path.name
