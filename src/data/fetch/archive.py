"""Downloading and safe unpacking of archives."""

import logging
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from src.data.fetch.download import fetch
from src.utils.console import progress
from src.utils.errors import UserError
from src.utils.lock import exclusive

log = logging.getLogger(__name__)

_MB = 1e6
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # zipfile: encrypted, or a compression it does not know
)


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", or "other": links and devices
    content: IO[bytes] | None = None


def fetch_dataset(url: str, root: Path, checksum: str | None = None) -> None:
    """Fills `root` from an archive if it is absent or empty.

    The archive stays in the folder `downloads` beside `root`; one that was put there is taken.
    """
    if _is_absent(root):
        log.info("dataset.root=%s is absent: fetching %s", root, url)
        extract(fetch(url, root.parent / "downloads", checksum), root)


def extract(archive: str | Path, directory: str | Path) -> Path:
    """Unpacks a tar (plain, gz, bz2, xz) or zip archive; `directory` gets its name only when whole.

    A directory that holds anything already is left alone. Only files and folders are written: an
    archive with links, devices, absolute paths or ".." is refused.

    Raises:
        UserError: The archive is damaged, of another format or refused, or the disk is full.
    """
    archive, directory = Path(archive), Path(directory).resolve()
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        with exclusive(directory):
            if _is_absent(directory):
                try:
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir()
                    _unpack(archive, partial)
                    partial.replace(directory)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except _DAMAGED as error:
        raise UserError(
            f"{archive}: the archive is damaged ({error}); delete it and run again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{archive}: cannot be unpacked into {directory} ({error.strerror or error})"
        ) from error
    return directory


def _is_absent(directory: Path) -> bool:
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


def _unpack(archive: Path, target: Path) -> None:
    with archive.open("rb") as raw, progress() as bar:
        task = bar.add_task(f"unpacking {archive.name} (MB)", total=archive.stat().st_size / _MB)
        for member in _members(archive, raw):
            path = target / member.name
            escapes = member.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.name)
            if escapes or not path.resolve().is_relative_to(target):
                raise UserError(
                    f"{archive}: refused, its member '{member.name}' would be written elsewhere; "
                    "get the archive from its own site"
                )
            if member.kind == "other":
                raise UserError(
                    f"{archive}: refused, its member '{member.name}' is a link or a device; "
                    "get the archive from its own site"
                )
            if member.content is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.content, path.open("wb") as file:
                    shutil.copyfileobj(member.content, file)
            bar.update(task, completed=raw.tell() / _MB)


def _members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    # A tar may end with a zip file and look like one, so tar is tried first
    if tarfile.is_tarfile(archive):
        with tarfile.open(fileobj=raw) as tar:
            for member in tar:
                if member.isreg():
                    yield _Member(member.name, "file", tar.extractfile(member))
                else:
                    yield _Member(member.name, "folder" if member.isdir() else "other")
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(raw) as file:
            for entry in file.infolist():
                if entry.is_dir():
                    yield _Member(entry.filename, "folder")
                elif stat.S_ISLNK(entry.external_attr >> 16):
                    yield _Member(entry.filename, "other")
                else:
                    yield _Member(entry.filename, "file", file.open(entry))
    else:
        raise UserError(f"{archive}: neither a tar nor a zip archive; delete it and run again")
