"""Problems of files found while a dataset is prepared."""

from collections.abc import Mapping
from pathlib import Path


class Problem(Exception):
    """Why a sample cannot be trained on.

    Attributes:
        kind: One of a few phrases, by which problems are grouped.
        file: The file's path, or a description of a row of a MindRecord file.
        detail: What was found and what was expected.
        stored: Pixels of every value in the label file, if some of them stand for no class.
    """

    def __init__(
        self, kind: str, file: Path | str, detail: str, stored: Mapping[int, int] | None = None
    ) -> None:
        super().__init__(f"{file}: {kind}: {detail}")
        self.kind, self.file, self.detail, self.stored = kind, file, detail, stored or {}


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        Problem: It is missing, unreadable or empty.
    """
    try:
        encoded = path.read_bytes()
    except FileNotFoundError as error:
        raise Problem("missing file", path, "no such file") from error
    except OSError as error:
        raise Problem("unreadable file", path, str(error.strerror)) from error
    if not encoded:
        raise Problem("empty file", path, "0 bytes")
    return encoded
