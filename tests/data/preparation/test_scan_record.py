import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.mindrecord import write_mindrecord
from src.data.preparation.conversion import scan_record
from src.data.preparation.labels import LabelRules
from src.utils.errors import UserError
from src.utils.palette import voc_palette
from tests.data.samples import convert, picture, png


@pytest.fixture
def record(tmp_path):
    """Writes a MindRecord file of rows of (data, label)."""

    def write(*pairs: tuple[bytes, bytes], name: str = "mindname") -> Path:
        path = tmp_path / f"{name}.mindrecord"
        rows = [
            {"file_name": f"f{i}", "data": data, "label": label}
            for i, (data, label) in enumerate(pairs)
        ]
        write_mindrecord(path, rows)
        return path

    return write


def test_an_existing_record_gets_the_same_report_and_is_left_alone(folder, out, record, tmp_path):
    ids = np.array([[0, 1, 255]], np.uint8)
    folder.add("f0", picture(1, 3), ids, image_suffix=".png")
    path = record((png(picture(1, 3)), png(ids)))
    before = sorted(p.name for p in tmp_path.iterdir())
    scanned = scan_record(path, out, LabelRules(3))
    assert scanned.path == path
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "prepared"])
    ours = convert(folder, tmp_path / "other").report
    for key in set(ours) - {"split", "fingerprint"}:
        assert scanned.report[key] == ours[key]


def test_the_report_on_a_record_is_kept_until_the_file_changes(record, out, caplog):
    path = record((png(picture(1, 1)), png(np.zeros((1, 1), np.uint8))))
    first = scan_record(path, out, LabelRules(3))
    caplog.set_level(logging.INFO)
    assert scan_record(path, out, LabelRules(3)) == first
    assert "reusing the report" in caplog.text
    record(*[(png(picture(1, 1)), png(np.zeros((1, 1), np.uint8)))] * 2)
    assert scan_record(path, out, LabelRules(3)).report["count"] == 2
    assert scan_record(path, out, LabelRules(4)).report["classes"][3]["pixels"] == 0


def test_problems_of_a_record_are_collected_by_row(record, out):
    image, label = png(picture(2, 2)), png(np.zeros((2, 2), np.uint8))
    palette = Image.fromarray(np.array([[0, 9], [12, 255]], np.uint8), mode="P")
    palette.putpalette(voc_palette().tobytes())
    palette.save(out.parent / "p.png")
    path = record(
        (image, label),
        (b"no image", label),
        (image, b"no label"),
        (image, png(np.zeros((3, 2), np.uint8))),
        (image, png(np.full((2, 2), 77, np.uint8))),
        (image, (out.parent / "p.png").read_bytes()),
        (image, png(picture(2, 2))),
    )
    with pytest.raises(
        UserError, match="mindname.mindrecord: 6 of 7 samples cannot be trained on"
    ) as caught:
        scan_record(path, out, LabelRules(21))
    listing = out / "mindname-problems.txt"
    assert str(caught.value).endswith(str(listing))
    lines = listing.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [f"row {i} (f{i})" for i in range(1, 7)]
    assert "mode P, which training would read as luminance" in lines[4]
    assert "mode RGB" in lines[5]


def test_a_record_of_foreground_saved_as_255_is_refused_with_the_way_to_convert_it(record, out):
    path = record((png(picture(1, 2)), png(np.array([[0, 255]], np.uint8))))
    with pytest.raises(UserError) as error:
        scan_record(path, out, LabelRules(2, prefix="dataset=folder "))
    assert "anew: ids are 0 and 255, and 255 is ignore_index" in str(error.value)
    assert "or set dataset=folder dataset.source.ids=[0,255]" in str(error.value)


def test_damaged_rows_and_an_empty_record_are_refused(record, out):
    path = record((png(picture(1, 1)), png(np.zeros((1, 1), np.uint8))))
    with path.open("rb+") as file:
        file.seek(16 << 20)
        file.write(b"\xff")
    with pytest.raises(UserError, match="1 of 1 samples .*damaged row: row 0"):
        scan_record(path, out, LabelRules(3))
    shutil.rmtree(out)
    with pytest.raises(UserError, match="no rows; expected at least one"):
        scan_record(record(name="none"), out, LabelRules(3))
