"""A lock that makes processes take turns."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lets one process at a time prepare `path`, a file or a folder; others wait and say so.

    The lock lies beside `path`, whose parent is made if absent.

    Raises:
        OSError: The parent cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that is preparing %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
