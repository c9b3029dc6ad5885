import tarfile

import pytest

from src.data.sources.records import RecordSource, TutorialSource
from src.utils.errors import UserError


def test_one_file_serves_every_split_with_a_warning(tmp_path, caplog):
    file = tmp_path / "mindname.mindrecord"
    file.write_bytes(b"")
    source = RecordSource(file)
    source.prepare()
    assert source.record_file("train") == file and caplog.text == ""
    assert source.record_file("val") == file
    assert "serves split 'val' and training alike" in caplog.text


def test_a_file_for_val_may_be_given(tmp_path, caplog):
    for name in ("train", "other"):
        (tmp_path / f"{name}.mindrecord").write_bytes(b"")
    source = RecordSource(tmp_path / "train.mindrecord", val_file=tmp_path / "other.mindrecord")
    assert source.record_file("val").name == "other.mindrecord" and caplog.text == ""
    with pytest.raises(UserError, match="val_file=none: no such file"):
        RecordSource(tmp_path, val_file="none").record_file("val")


def test_a_folder_holds_a_file_for_each_split(tmp_path):
    for name in ("train", "val"):
        (tmp_path / f"{name}.mindrecord").write_bytes(b"")
    source = RecordSource(tmp_path)
    assert source.record_file("val") == tmp_path / "val.mindrecord"
    with pytest.raises(
        UserError, match=r"split 'vall': no file .*there: train, val\); did you mean 'val'"
    ):
        source.record_file("vall")


def test_an_absent_root_is_refused(tmp_path):
    with pytest.raises(UserError, match="none: no such file or folder; expected FILE.mindrecord"):
        RecordSource(tmp_path / "none").prepare()


def test_the_tutorials_archive_is_unpacked_to_the_root(tmp_path, caplog):
    inner = tmp_path / "dataset_fcn8s"
    inner.mkdir()
    for name in ("mindname.mindrecord", "mindname.mindrecord.db"):
        (inner / name).write_bytes(b"x")
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    with tarfile.open(tmp_path / "data" / "downloads" / "dataset_fcn8s.tar", "w") as tar:
        tar.add(inner, "dataset_fcn8s")
    source = TutorialSource(tmp_path / "data" / "tutorial")
    source.prepare()
    source.prepare()
    file = source.record_file("train")
    assert file == tmp_path / "data/tutorial/dataset_fcn8s/mindname.mindrecord"
    assert file.with_name("mindname.mindrecord.db").is_file()
    assert TutorialSource(file).record_file("train") == file


def test_a_root_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no mindname\.mindrecord in it"):
        TutorialSource(tmp_path).prepare()
