import json
import pickle
import resource
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mindspore.mindrecord import FileReader, FileWriter

from src.data.mindrecord import MindRecordFile, write_mindrecord
from src.utils.errors import UserError

STRING, BYTES = {"type": "string"}, {"type": "bytes"}
TUTORIAL = {"file_name": STRING, "label": BYTES, "data": BYTES}


def make_rows(count: int, largest: int = 2000, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "file_name": f"bild_{i:03d}",
            "label": rng.bytes(int(rng.integers(1, largest // 4))),
            "data": rng.bytes(int(rng.integers(1, largest))),
        }
        for i in range(count)
    ]


def write_by_hand(path, rows, schema=TUTORIAL, shards=1, index=None, page_size=None):
    writer = FileWriter(str(path), shard_num=shards, overwrite=True)
    if page_size is not None:
        writer.set_page_size(page_size)
    writer.add_schema(schema, "by hand")
    if index is not None:
        writer.add_index(index)
    for start in range(0, len(rows), 7):
        writer.write_raw_data(rows[start : start + 7])
    writer.commit()


def read_by_mindspore(path) -> list[tuple[str, bytes, bytes]]:
    reader = FileReader(str(path))
    rows = [(row["file_name"], row["data"], row["label"]) for row in reader.get_next()]
    reader.close()
    return rows


def as_tuples(rows) -> list[tuple[str, bytes, bytes]]:
    return [(row["file_name"], row["data"], row["label"]) for row in rows]


def edit_header(path: Path, **changes) -> None:
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.dumps({**json.loads(file.read(length)), **changes}).encode()
        file.seek(0)
        file.write(len(header).to_bytes(8, "little") + header)


@pytest.fixture
def record(tmp_path) -> Path:
    path = tmp_path / "data.mindrecord"
    write_mindrecord(path, make_rows(5))
    return path


def test_what_is_written_is_read_back_by_us_and_by_mindspore(tmp_path):
    rows, path = make_rows(40), tmp_path / "data.mindrecord"
    assert write_mindrecord(path, iter(rows)) == 40
    assert list(MindRecordFile(path)) == as_tuples(rows) == read_by_mindspore(path)


def test_names_keep_quotes_blanks_and_other_scripts(tmp_path):
    names = ["it's", 'a"b', "ünï_日本", "sub/dir/x y", "semi;--", ""]
    path = tmp_path / "data.mindrecord"
    write_mindrecord(path, [{"file_name": n, "label": b"l", "data": b"d"} for n in names])
    assert [name for name, _, _ in MindRecordFile(path)] == names


def test_rows_over_many_pages_are_found(tmp_path):
    rows, path = make_rows(60, largest=9000), tmp_path / "pages.mindrecord"
    write_by_hand(path, rows, page_size=32 * 1024)
    pages = sqlite3.connect(f"{path}.db").execute("SELECT DISTINCT PAGE_ID_BLOB FROM INDEXES")
    assert len(pages.fetchall()) > 5
    assert list(MindRecordFile(path)) == as_tuples(rows) == read_by_mindspore(path)


def test_further_columns_are_skipped(tmp_path):
    schema = {
        **TUTORIAL,
        "aaa": BYTES,
        "zzz": BYTES,
        "boxes": {"type": "int32", "shape": [-1]},  # compressed by MindSpore
        "width": {"type": "int64"},
        "author": STRING,
    }
    rows = [
        {
            **row,
            "aaa": b"A" * i,
            "zzz": b"Z",
            "boxes": np.arange(i + 1, dtype=np.int32),
            "width": i,
            "author": "x",
        }
        for i, row in enumerate(make_rows(9))
    ]
    path = tmp_path / "more.mindrecord"
    write_by_hand(path, rows, schema)
    assert list(MindRecordFile(path)) == as_tuples(rows) == read_by_mindspore(path)


def test_all_shards_are_read_in_their_order_from_any_of_them(tmp_path):
    write_by_hand(tmp_path / "part.mindrecord", make_rows(20), shards=3)
    first = MindRecordFile(tmp_path / "part.mindrecord0")
    assert list(first) == read_by_mindspore(tmp_path / "part.mindrecord0")
    assert sorted(first) == as_tuples(make_rows(20))
    assert list(MindRecordFile(tmp_path / "part.mindrecord2")) == list(first)


def test_a_missing_shard_and_the_name_without_number_are_refused(tmp_path):
    write_by_hand(tmp_path / "part.mindrecord", make_rows(6), shards=2)
    with pytest.raises(UserError, match="did you mean its first shard, part.mindrecord0"):
        MindRecordFile(tmp_path / "part.mindrecord")
    (tmp_path / "part.mindrecord1").unlink()
    with pytest.raises(UserError, match="part.mindrecord1: cannot be opened"):
        MindRecordFile(tmp_path / "part.mindrecord0")


def test_rows_have_numbers_where_the_index_has_no_names(tmp_path):
    schema = {"label": BYTES, "data": BYTES}
    rows = [{"label": b"l", "data": b"d"}] * 3
    write_by_hand(tmp_path / "bare.mindrecord", rows, schema)
    names = [name for name, _, _ in MindRecordFile(tmp_path / "bare.mindrecord")]
    assert names == ["row_000000", "row_000001", "row_000002"]


def test_rows_appended_later_follow(tmp_path):
    path, rows = tmp_path / "more.mindrecord", make_rows(8)
    write_by_hand(path, rows[:5])
    writer = FileWriter.open_for_append(str(path))
    writer.write_raw_data(rows[5:])
    writer.commit()
    assert list(MindRecordFile(path)) == as_tuples(rows)


def test_a_renamed_file_is_read(record):
    moved = record.with_name("other name.mindrecord")
    record.rename(moved)
    record.with_name("data.mindrecord.db").rename(f"{moved}.db")
    assert len(MindRecordFile(moved)) == 5


def test_indexing_beyond_the_end_raises(record):
    file = MindRecordFile(record)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            file[index]


def test_threads_read_the_right_rows(tmp_path):
    rows = make_rows(50)
    write_mindrecord(tmp_path / "data.mindrecord", rows)
    file, wanted = MindRecordFile(tmp_path / "data.mindrecord"), as_tuples(rows)
    order = np.random.default_rng(1).integers(0, 50, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(file.__getitem__, order)) == [wanted[i] for i in order]


def test_a_copy_through_pickle_reads_the_same(record):
    file = MindRecordFile(record)
    assert list(pickle.loads(pickle.dumps(file))) == list(file)


def test_files_are_closed_with_the_object(record):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        MindRecordFile(record)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_a_file_opened_is_read_on_when_it_is_deleted(record):
    file = MindRecordFile(record)
    wanted = list(file)
    shutil.rmtree(record.parent)
    assert list(file) == wanted


def test_a_row_larger_than_a_page_is_refused_by_name(tmp_path):
    rows = [{"file_name": "huge", "label": b"l", "data": bytes(2 << 20)}]
    with pytest.raises(UserError, match="huge: image and label take 2 MB; .* holds 1 MB; cut"):
        write_mindrecord(tmp_path / "data.mindrecord", rows, page_size=1 << 20)


def test_an_error_of_the_rows_passes_unchanged(tmp_path):
    def rows():
        yield from make_rows(2)
        raise RuntimeError("of the rows")

    with pytest.raises(RuntimeError, match="^of the rows$"):
        write_mindrecord(tmp_path / "data.mindrecord", rows())


@contextmanager
def disk_full_after(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_with_the_remedy(tmp_path):
    with (
        disk_full_after(1 << 20),
        pytest.raises(
            UserError, match=r"could not be written .* MB are free there; make room"
        ) as caught,
    ):
        write_mindrecord(tmp_path / "data.mindrecord", make_rows(5))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="folder cannot be reached: No such file"):
        write_mindrecord(tmp_path / "absent" / "data.mindrecord", make_rows(1))


def test_what_was_written_wrong_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(MindRecordFile, "__iter__", lambda _: iter([("x", b"other", b"bytes")]))
    with pytest.raises(UserError, match="what was read back differs"):
        write_mindrecord(tmp_path / "data.mindrecord", make_rows(3))


def test_a_missing_index_is_refused(record):
    record.with_name("data.mindrecord.db").unlink()
    with pytest.raises(UserError, match="data.mindrecord.db: missing; .*copy both files"):
        MindRecordFile(record)


def test_a_foreign_index_is_refused(record):
    record.with_name("data.mindrecord.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="not a MindRecord index .*copy or write both"):
        MindRecordFile(record)


def test_an_index_without_the_table_is_refused(record):
    record.with_name("data.mindrecord.db").write_bytes(b"")
    with pytest.raises(UserError, match="not a MindRecord index"):
        MindRecordFile(record)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x02" + bytes(7) + b"[]"]
)
def test_another_file_is_refused(record, content):
    record.write_bytes(content)
    with pytest.raises(UserError, match="no MindRecord header; expected"):
        MindRecordFile(record)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="absent.mindrecord: cannot be opened .No such file"):
        MindRecordFile(tmp_path / "absent.mindrecord")
    with pytest.raises(UserError, match="cannot be opened .Is a directory"):
        MindRecordFile(tmp_path)


def test_a_truncated_file_is_refused(record):
    with record.open("rb+") as file:
        file.truncate((16 << 20) + 100)  # the header is 16 MB
    with pytest.raises(UserError, match=r"16777316 bytes of \d+ its index speaks of; copy"):
        MindRecordFile(record)


def test_another_version_is_refused(record):
    edit_header(record, version="2.0")
    with pytest.raises(UserError, match="MindRecord version 2.0; expected 3.0"):
        MindRecordFile(record)


def test_damaged_rows_are_refused_when_read(record):
    with record.open("rb+") as file:
        file.seek(16 << 20)  # the first row's length
        file.write(b"\xff\xff")
    file = MindRecordFile(record)
    with pytest.raises(UserError, match=r"row 0 \(bild_000\) is damaged; write the file again"):
        file[0]
    assert file[1] == as_tuples(make_rows(5))[1]


@pytest.mark.parametrize(
    ("schema", "row", "found"),
    [
        (
            {"data": BYTES, "label": {"type": "int32"}},
            {"data": b"d", "label": 3},
            r"label \(int32\)",
        ),
        (
            {"data": BYTES, "file_name": STRING},
            {"data": b"d", "file_name": "f"},
            r"columns data \(bytes\), file_name",
        ),
        ({"image": BYTES, "label": BYTES}, {"image": b"d", "label": b"l"}, r"image \(bytes\)"),
        (
            {"data": BYTES, "label": {"type": "int32", "shape": [-1]}},
            {"data": b"d", "label": np.arange(3, dtype=np.int32)},
            r"label \(int32\)",
        ),
    ],
)
def test_columns_that_are_no_pair_of_images_are_refused(tmp_path, schema, row, found):
    write_by_hand(tmp_path / "other.mindrecord", [row], schema)
    with pytest.raises(UserError, match=rf"{found}.*; expected data \(bytes\) and label \(bytes\)"):
        MindRecordFile(tmp_path / "other.mindrecord")
