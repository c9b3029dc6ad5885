"""Files that are never half-written."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.utils.errors import UserError, error_summary


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary sibling, flushes it to the disk and renames it to `path`.

    A reader, or a run that is killed in between, sees the old file or the new one, never a part.
    The file has the permissions of the user's umask, whatever `write` leaves: MindSpore's
    `save_checkpoint` leaves mode 0400.

    Raises:
        UserError: The disk is full or the folder is not writable; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # MindSpore reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error_summary(error)
        raise UserError(
            f"{path}: could not be written ({reason}); make room or choose another folder; what "
            "was there before is unchanged"
        ) from error


def user_cache() -> Path:
    """The folder of what this project keeps for the next run of the user.

    Raises:
        RuntimeError: The user has no home directory.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fcn-mindspore"


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically; NaN and infinities become null, as JSON has neither."""
    write_text(path, json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a missing or broken one is a UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # NumPy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
