import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.data.mindrecord import MindRecordFile
from src.data.preparation import conversion
from src.data.preparation.conversion import prepare_split
from src.data.preparation.labels import LabelRules
from src.data.sources.file_lists import Sample
from src.data.transforms import decode_image, decode_label
from src.utils.errors import UserError
from src.utils.palette import voc_palette
from tests.data.samples import Folder, convert, picture, refusal, visible

ROOT = Path(__file__).parents[3]


def test_a_second_call_reuses_and_says_so(folder, out, caplog):
    folder.add("a")
    first = convert(folder, out)
    before = first.path.stat().st_mtime_ns
    caplog.set_level(logging.INFO)
    caplog.clear()
    again = convert(folder, out)
    assert again == first
    assert again.path.stat().st_mtime_ns == before
    assert [r.getMessage() for r in caplog.records] == [
        f"reusing {first.path.parent}: 1 samples of split 'train'"
    ]


def test_a_conversion_is_reused_from_where_nothing_can_be_written(folder, out, monkeypatch):
    folder.add("a")
    first = convert(folder, out)
    monkeypatch.setattr(
        conversion, "exclusive", lambda directory: pytest.fail("asked for the lock")
    )
    assert convert(folder, out) == first


def test_any_change_of_the_sources_or_the_rules_converts_anew(folder, out):
    first, second = folder.add("a"), folder.add("b")
    paths = [convert(folder, out).path]
    os.utime(first.image, ns=(0, 10**18))
    paths.append(convert(folder, out).path)
    Image.fromarray(picture(6, 8, 7)).save(second.image)
    paths.append(convert(folder, out).path)
    paths.append(convert(folder, out, num_classes=4).path)
    paths.append(convert(folder, out, ignore_index=9).path)
    paths.append(convert(folder, out, palette=voc_palette(4)).path)
    paths.append(convert(folder, out, ids=(0, 2, 1)).path)
    folder.source.void_ids = (7,)
    paths.append(convert(folder, out).path)
    folder.source.listed.pop()
    paths.append(convert(folder, out).path)
    assert len(set(paths)) == 9
    assert all(path.exists() for path in paths)


def same_time(*paths):
    for path in paths:
        os.utime(path, (1.7e9, 1.7e9))


def stored_ids(prepared) -> list[int]:
    return [int(decode_label(label)[0, 0]) for _, _, label in MindRecordFile(prepared.path)]


def test_other_labels_of_the_same_name_size_and_time_are_converted_anew(folder, out):
    sample = folder.add("a", label_suffix=".bmp")
    same_time(sample.image, sample.label)
    assert stored_ids(convert(folder, out)) == [0]
    size = sample.label.stat().st_size
    Image.fromarray(np.ones((6, 8), np.uint8)).save(sample.label)
    same_time(sample.label)
    assert sample.label.stat().st_size == size
    assert stored_ids(convert(folder, out)) == [1]


@pytest.mark.parametrize("way", ["rename", "write"])
def test_another_image_of_the_same_name_size_and_time_is_converted_anew(folder, out, way):
    sample = folder.add("a", picture(6, 8, 1), image_suffix=".bmp")
    same_time(sample.image)
    first = convert(folder, out).path
    target = sample.image if way == "write" else sample.image.with_name("new.bmp")
    Image.fromarray(picture(6, 8, 2)).save(target)
    same_time(target)
    target.replace(sample.image)
    assert sample.image.stat().st_mtime == 1.7e9
    second = convert(folder, out).path
    assert second != first
    (row,) = MindRecordFile(second)
    assert decode_image(row[1]).tolist() == picture(6, 8, 2).tolist()


def test_datasets_that_look_alike_do_not_share_a_conversion(tmp_path, out):
    folders = [Folder(tmp_path / name) for name in "AB"]
    for i, folder in enumerate(folders):
        sample = folder.add("a", picture(6, 8, 1), np.full((6, 8), i, np.uint8), ".bmp", ".bmp")
        same_time(sample.image, sample.label)
    prepared = [convert(folder, out) for folder in folders]
    assert [stored_ids(p) for p in prepared] == [[0], [1]]
    again = [convert(folder, out) for folder in folders]
    assert again == prepared


def test_labels_of_another_folder_are_converted_anew_even_if_they_are_equal(folder, out):
    sample = folder.add("a")
    first = convert(folder, out).path
    copy = sample.label.parent / "again" / sample.label.name
    copy.parent.mkdir()
    shutil.copy2(sample.label, copy)
    folder.source.listed = [Sample("a", sample.image, copy)]
    assert convert(folder, out).path != first


COLORS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30]], np.uint8)


def repaint(sample, numbers, colors):
    image = Image.fromarray(np.array(numbers, np.uint8), "P")
    image.putpalette(np.asarray(colors, np.uint8).tobytes())
    image.resize((8, 6), Image.Resampling.NEAREST).save(sample.label)


def test_palettes_that_number_the_same_colours_otherwise_are_refused(folder, out):
    """By their numbers, the second file's classes 0 and 2 would be swapped."""
    repaint(folder.add("a"), [[0, 1, 2]], COLORS)
    repaint(folder.add("b"), [[2, 1, 0]], COLORS[::-1])
    message = refusal(folder, out)
    assert "the colour (30, 200, 30) has the number 2 in a and 0 in b" in message
    assert "dataset.source.palette" in message and "set dataset.source.ids=[0,1,2]" in message
    record = MindRecordFile(convert(folder, out, palette=COLORS).path)
    first, second = (decode_label(label) for _, _, label in (record[0], record[1]))
    assert np.array_equal(first, second) and np.unique(first).tolist() == [0, 1, 2]
    record = MindRecordFile(convert(folder, out, ids=(0, 1, 2)).path)
    assert np.array_equal(decode_label(record[0][2]), 2 - decode_label(record[1][2]))


def test_palettes_that_differ_in_unused_entries_or_have_one_colour_are_taken(folder, out):
    repaint(folder.add("a"), [[0, 1, 1]], COLORS)
    repaint(folder.add("b"), [[0, 1, 1]], COLORS[[0, 1, 1]])
    repaint(folder.add("c"), [[0, 1, 2]], np.zeros((3, 3)))
    assert convert(folder, out).report["count"] == 3


def test_a_label_file_that_was_only_touched_is_the_same(folder, out):
    sample = folder.add("a")
    first = convert(folder, out)
    os.utime(sample.label)
    assert convert(folder, out) == first


def test_a_damaged_conversion_is_made_again(folder, out, caplog):
    folder.add("a")
    path = convert(folder, out).path
    for damage in (
        lambda: path.with_name("data.mindrecord.db").unlink(),
        lambda: path.with_name("report.json").write_text('{"count": 1}'),
        lambda: path.with_name("report.json").write_text("{"),
        lambda: os.truncate(path, 1000),
    ):
        damage()
        caplog.clear()
        assert len(MindRecordFile(convert(folder, out).path)) == 1
        assert "converting again" in caplog.text


def test_many_samples_keep_their_order(folder, out):
    for i in range(70):  # more than are under way at once
        folder.add(f"s{i:02d}", picture(3 + i % 5, 4), np.full((3 + i % 5, 4), i % 3, np.uint8))
    rows = list(MindRecordFile(convert(folder, out).path))
    assert [name for name, _, _ in rows] == [f"s{i:02d}" for i in range(70)]
    assert [decode_label(label)[0, 0] for _, _, label in rows] == [i % 3 for i in range(70)]


def test_an_empty_split_and_names_listed_twice_are_refused(folder, out):
    with pytest.raises(UserError, match="split 'train': no samples; expected at least one"):
        convert(folder, out)
    folder.add("a")
    folder.add("a")
    with pytest.raises(UserError, match="split 'train': names listed twice: a"):
        convert(folder, out)


def test_a_split_may_have_a_name_that_no_file_can_have(folder, out):
    folder.add("a")
    prepared = prepare_split(folder.source, "lists/my split", out, LabelRules(3))
    assert prepared.path.parent.name.startswith("lists_my_split-")
    assert prepared.report["split"] == "lists/my split"


def test_a_full_disk_leaves_nothing_behind(folder, out):
    folder.add("a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        assert "MindRecord could not be written" in refusal(folder, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_cannot_be_made_is_a_user_error(folder, tmp_path):
    folder.add("a")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="not writable .*dataset.prepared_dir"):
        convert(folder, tmp_path / "file" / "prepared")


PROCESS = """
import json, logging, sys, time
from pathlib import Path
from types import SimpleNamespace
from src.data.preparation import conversion
from src.data.preparation import inspection
from src.data.preparation.labels import LabelRules
from src.data.sources.file_lists import Sample

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
out, files, before = json.loads(sys.argv[1])
samples = [Sample(name, Path(image), Path(label)) for name, image, label in files]
exec(before)
source = SimpleNamespace(samples=lambda split: samples)
conversion.prepare_split(source, "train", out, LabelRules(3))
"""


def start(folder: Folder, out: Path, before: str) -> subprocess.Popen:
    """Converts in a process of its own, which runs the statement `before` first."""
    files = [(s.name, str(s.image), str(s.label)) for s in folder.source.listed]
    command = [sys.executable, "-c", PROCESS, json.dumps([str(out), files, before])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_conversion_killed_before_its_end_is_never_reused(folder, out):
    folder.add("a")
    late = "conversion.write_json = lambda *_: (print('there', flush=True), time.sleep(60))"
    process = start(folder, out, late)
    assert any("there" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = visible(out)
    assert left.startswith(".train-") and left.endswith(".tmp")
    assert (out / left / "data.mindrecord").exists()
    prepared = convert(folder, out)
    assert visible(out) == [prepared.path.parent.name]  # what was left is gone
    assert len(MindRecordFile(prepared.path)) == 1


def test_two_processes_at_once_convert_once(folder, out):
    for i in range(3):
        folder.add(f"s{i}")
    slow = "inspection.map_ahead = lambda f, items, workers: time.sleep(1.5) or map(f, items)"
    processes = [start(folder, out, slow) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0].strip() for process in processes]
    converted, waited = sorted(outputs, key=lambda output: "waiting" in output)
    assert [process.returncode for process in processes] == [0, 0]
    (target,) = visible(out)
    assert waited.splitlines() == [
        f"waiting for another process that is preparing {out}",
        f"reusing {out / target}: 3 samples of split 'train'",
    ]
    assert "converted split 'train', 3 samples" in converted


def test_a_picture_that_only_its_format_packs_densely_gets_the_larger_page(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
    large = cv2.resize(noise, None, fx=3, fy=3)
    for name, image in (("large", large), ("small", noise)):
        Image.fromarray(image).save(tmp_path / f"{name}.webp", quality=1)
    assert (tmp_path / "large.webp").stat().st_size < 2 << 20
    assert conversion._may_be_large(tmp_path / "large.webp")
    assert not conversion._may_be_large(tmp_path / "small.webp")
    assert not conversion._may_be_large(tmp_path / "absent.webp")
