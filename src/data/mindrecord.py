"""MindRecord files: written by MindSpore's `FileWriter`, read by offset.

`MindDataset` tells a mapped function neither the epoch nor the index of a row, and its threads
share one random generator, so augmentation could not be repeated. `MindRecordFile` is a
random-access source instead: sampler and transform decide what row is read, and with what seed.

The format (version 3.0; all of it is compared with MindSpore's own `FileReader` in the tests):

    data.mindrecord       uint64 length of the header, JSON header, padding up to `header_size`;
                          then pages of `page_size` bytes
    data.mindrecord.db    SQLite; table INDEXES has page and offsets of every row
    blob of a row         uint64 length of the rest (little-endian), then for every blob field of
                          the schema, in the header's order, uint64 length (big-endian), bytes
"""

import json
import os
import shutil
import sqlite3
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from src.utils.errors import UserError

_VERSION = "3.0"
_SCHEMA = {
    "file_name": {"type": "string"},
    "label": {"type": "bytes"},
    "data": {"type": "bytes"},
}
_MAX_HEADER = 128 << 20  # as far as FileWriter lets it grow
_BATCH_BYTES = 8 << 20
DEFAULT_PAGE, LARGEST_PAGE = 32 << 20, 256 << 20  # bytes; a row must fit into a page


class Row(TypedDict):
    """A sample as MindRecord holds it: `data` and `label` are encoded image files."""

    file_name: str
    label: bytes
    data: bytes


def write_mindrecord(path: Path, rows: Iterable[Row], page_size: int = DEFAULT_PAGE) -> int:
    """Writes rows to `path` and its index to `path`.db, and reads all of them back once.

    The files are sparse: they seem to be 50 MB at least, and occupy what the rows need.

    Returns:
        The number of rows.

    Raises:
        UserError: The disk is full or failing, or a row is larger than a page. What lies at
            `path` then is of no use.
    """
    from mindspore.mindrecord import FileWriter

    count, checksum = 0, 0
    iterator = iter(rows)
    with _explained(path):
        writer = FileWriter(str(path), overwrite=True)
        writer.set_page_size(page_size)
        writer.add_schema(_SCHEMA, "semantic segmentation")
    # Outside the guard, since what `rows` raises is the caller's
    while batch := _next_batch(iterator, page_size):
        count += len(batch)
        for row in batch:
            checksum = zlib.crc32(row["label"], zlib.crc32(row["data"], checksum))
        with _explained(path):
            writer.write_raw_data(batch)
    with _explained(path):
        writer.commit()
        written = 0
        for _, data, label in MindRecordFile(path):
            written = zlib.crc32(label, zlib.crc32(data, written))
        if written != checksum:
            raise OSError("what was read back differs")
    return count


def _next_batch(rows: Iterator[Row], page_size: int) -> list[Row]:
    batch, size = [], 0
    for row in rows:
        length = len(row["data"]) + len(row["label"])
        if length > page_size - 64:
            raise UserError(
                f"{row['file_name']}: image and label take {length >> 20} MB; a page of MindRecord "
                f"holds {page_size >> 20} MB; cut the image into tiles"
            )
        batch.append(row)
        size += length
        if size >= _BATCH_BYTES:
            break
    return batch


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns MindSpore's page of text about a failed write into one line."""
    from mindspore.mindrecord.common.exceptions import MindRecordException

    try:
        yield
    except (RuntimeError, OSError, UserError, MindRecordException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
        reason = next((line for line in lines if line.startswith("[ERROR]")), lines[0])
        try:
            free = f"{shutil.disk_usage(path.parent).free >> 20} MB are free there"
        except OSError as gone:
            free = f"the folder cannot be reached: {gone.strerror}"
        raise UserError(
            f"{path.parent}: MindRecord could not be written "
            f"({reason.removeprefix('[ERROR]').strip()}); {free}; make room, or choose another "
            "disk with dataset.prepared_dir"
        ) from error


class MindRecordFile(Sequence[tuple[str, bytes, bytes]]):
    """Random access to the rows `(file_name, data, label)` of a MindRecord file.

    Safe to index from several threads, and picklable. Only names and offsets are kept in memory.
    Of a file written in shards, give any one: the rows of all are read, in the shards' order.

    Args:
        path: The file; its index `<path>.db` must lie beside it. Both may be read-only.

    Raises:
        UserError: Something is missing, truncated, of another version, or without the columns
            `data` and `label` of encoded images. Also from indexing, if a row is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header = _read_header(self.path)
        addresses = header.get("shard_addresses") or [self.path.name]
        self.shards = (
            [self.path]  # whatever it is called now
            if len(addresses) == 1
            else [self.path.with_name(Path(address).name) for address in addresses]
        )
        self._fields: list[str] = header["schema"][0]["blob_fields"]
        self._names: list[str] = []
        extents = [np.zeros((0, 3), np.int64)]
        for number, shard in enumerate(self.shards):
            names, offsets = _read_index(shard, _read_header(shard))
            self._names += names
            extents.append(np.insert(offsets, 0, number, axis=1))
        self._extents = np.concatenate(extents)  # N×3: shard, offset, length
        self._files = [os.open(shard, os.O_RDONLY) for shard in self.shards]
        weakref.finalize(self, _close, self._files)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return MindRecordFile, (self.path,)

    @property
    def names(self) -> list[str]:
        """The file names of all rows."""
        return self._names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[str, bytes, bytes]:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard, offset, length = self._extents[index].tolist()
        blob = os.pread(self._files[shard], length, offset)
        fields = _split(blob, self._fields)
        if len(blob) != length or fields is None:
            raise UserError(
                f"{self.shards[shard]}: row {index} ({self._names[index]}) is damaged; write the "
                "file again"
            )
        return self._names[index], fields["data"], fields["label"]


class Rows(Sequence[tuple[str, bytes, bytes]]):
    """The rows of several files one after another, or chosen ones of these.

    Args:
        files: Read as `MindRecordFile` says.
        chosen: Positions in the rows of all files; None takes all rows.
    """

    def __init__(self, files: Sequence[MindRecordFile], chosen: np.ndarray | None = None) -> None:
        self._files = files
        places = [(number, row) for number, file in enumerate(files) for row in range(len(file))]
        self._places = np.array(places, np.int64).reshape(-1, 2)  # N×2: file, row
        if chosen is not None:
            self._places = self._places[chosen]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[str, bytes, bytes]:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        file, row = self._places[index].tolist()
        return self._files[file][row]

    @property
    def names(self) -> list[str]:
        """The file names of the rows."""
        return [self._files[file].names[row] for file, row in self._places.tolist()]


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _split(blob: bytes, names: list[str]) -> dict[str, bytes] | None:
    fields, at = {}, 8
    for name in names:
        start = at + 8
        at = start + int.from_bytes(blob[at:start], "big")
        fields[name] = blob[start:at]
    sound = int.from_bytes(blob[:8], "little") + 8 == at == len(blob)
    return fields if sound else None


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _MAX_HEADER)))
        version, schema = header["version"], header["schema"][0]
        blobs, columns = schema["blob_fields"], schema["schema"]
        int(header["header_size"]), int(header["page_size"])
    except OSError as error:
        first = path.with_name(path.name + "0")
        hint = f"; did you mean its first shard, {first.name}?" if first.exists() else ""
        raise UserError(f"{path}: cannot be opened ({error.strerror}){hint}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: no MindRecord header; expected a file of mindspore.mindrecord.FileWriter, "
            "neither truncated nor encrypted; copy or write it again"
        ) from error
    if version != _VERSION:
        raise UserError(
            f"{path}: MindRecord version {version}; expected {_VERSION}; write it again with a "
            "present MindSpore"
        )
    types = {name: column.get("type") for name, column in columns.items()}
    if not all(name in blobs and types.get(name) == "bytes" for name in ("data", "label")):
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise UserError(
            f"{path}: columns {found}; expected data (bytes) and label (bytes), an encoded image "
            "and its encoded label; write it again so"
        )
    return header


def _read_index(path: Path, header: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names, and N×2 int64 offsets and lengths, of the rows of one shard."""
    index = path.with_name(path.name + ".db")
    if not index.exists():
        raise UserError(
            f"{index}: missing; MindRecord is read through the index beside it; copy both files"
        )
    try:
        # immutable: no lock and no journal, which a read-only disk would refuse
        database = sqlite3.connect(f"{index.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            columns = {row[1] for row in database.execute("PRAGMA table_info(INDEXES)")}
            name = "file_name_0" if "file_name_0" in columns else "printf('row_%06d', ROW_ID)"
            rows = database.execute(
                f"SELECT {name}, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END "
                "FROM INDEXES ORDER BY ROW_ID"
            ).fetchall()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise UserError(
            f"{index}: not a MindRecord index ({error}); copy or write both files again"
        ) from error
    numbers = np.array([row[1:] for row in rows], np.int64).reshape(-1, 3)
    offsets = header["header_size"] + numbers[:, 0] * header["page_size"] + numbers[:, 1]
    lengths = numbers[:, 2] - numbers[:, 1]
    needed, found = int((offsets + lengths).max(initial=0)), path.stat().st_size
    if found < needed:
        raise UserError(
            f"{path}: {found} bytes of {needed} its index speaks of; copy or write it again"
        )
    return [str(row[0]) for row in rows], np.stack([offsets, lengths], axis=1)
