"""The lock of a run's or a sweep's directory: a second process is refused."""

import logging
from pathlib import Path

from filelock import FileLock, Timeout

from src.utils.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"


def hold(path: Path, key: str) -> FileLock:
    """Takes the lock of a directory, which the system releases when this process ends.

    Args:
        path: The directory.
        key: Of the config, which names the directory.

    Raises:
        UserError: Another process has it.
    """
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{key}={path}: another process is at work in it; wait or stop that one"
        ) from None
    except NotImplementedError:
        log.warning("%s: the file system has no locks; start nothing else in it", path)
    return lock


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a directory."""
    if not (path / LOCK).exists():
        return False
    try:
        with FileLock(path / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except NotImplementedError:  # without locks this is unknown
        return False
