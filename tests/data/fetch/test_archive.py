import hashlib
import io
import tarfile
import threading
import zipfile

import pytest

from src.data.fetch.archive import extract, fetch_dataset
from src.utils.errors import UserError


def tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = 3
            file.addfile(member, io.BytesIO(b"abc"))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_tar_archives(tmp_path, mode):
    folder = tarfile.TarInfo("set/empty")
    folder.type = tarfile.DIRTYPE
    archive = tar(tmp_path / "a.tar", "set/x.txt", folder, "./set/deep/y.txt", mode=mode)
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out/set/x.txt").read_text() == "abc"
    assert (tmp_path / "out/set/deep/y.txt").read_text() == "abc"
    assert (tmp_path / "out/set/empty").is_dir()


def test_unpacks_zip_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("set/", "")
        file.writestr("set/x.txt", "abc")
    extract(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out/set/x.txt").read_text() == "abc"


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.writestr("x.txt", "abc")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "in.zip", "in.zip")
    extract(tmp_path / "a.tar", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in.zip"]


@pytest.mark.parametrize(
    "member",
    [
        "../evil.txt",
        "set/../../evil.txt",
        "/tmp/evil.txt",
        "..\\evil.txt",
        link("set/link", "../../outside"),
        link("set/link", "x.txt", tarfile.LNKTYPE),
        link("set/pipe", "", tarfile.FIFOTYPE),
        link("set/device", "", tarfile.CHRTYPE),
    ],
    ids=[
        "parent",
        "inner parent",
        "absolute",
        "backslash",
        "symlink",
        "hard link",
        "pipe",
        "device",
    ],
)
def test_refuses_members_that_could_reach_outside(tmp_path, member):
    archive = tar(tmp_path / "a.tar", "set/x.txt", member)
    with pytest.raises(UserError, match=r"a\.tar: refused, its member '.*(evil|link|pipe|device)"):
        extract(archive, tmp_path / "below" / "out")
    left = [path for path in (tmp_path / "below").rglob("*") if path.suffix != ".lock"]
    assert left == [] and not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name, unix_mode", [("../evil.txt", 0o100644), ("link", 0o120777)])
def test_refuses_such_members_in_zip_archives_too(tmp_path, name, unix_mode):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = unix_mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(entry, "abc")
    with pytest.raises(UserError, match="refused"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_an_error_and_leaves_nothing(tmp_path):
    whole = tar(tmp_path / "a.tgz", *(f"set/{i}.txt" for i in range(50)), mode="w:gz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.tgz: the archive is damaged .*delete it") as error:
        extract(tmp_path / "cut.tgz", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar").write_text("<html>moved</html>")
    with pytest.raises(UserError, match="neither a tar nor a zip archive"):
        extract(tmp_path / "a.tar", tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    archive = tar(tmp_path / "a.tar", "x.txt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    extract(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path):
    archive = tar(tmp_path / "a.tar", "x.txt")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out" / "x.txt").read_text() == "abc"


def test_what_an_interrupted_run_left_is_cleared(tmp_path):
    archive = tar(tmp_path / "a.tar", "x.txt")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half.txt").write_text("")
    extract(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.txt"]


def test_two_at_once_unpack_once(tmp_path):
    archive = tar(tmp_path / "a.tar", *(f"{i}.txt" for i in range(100)))
    threads = [threading.Thread(target=extract, args=(archive, tmp_path / "out")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "out").iterdir())) == 100


def test_an_archive_put_into_downloads_is_taken_without_network(tmp_path):
    (tmp_path / "downloads").mkdir()
    archive = tar(tmp_path / "downloads" / "set.tar", "x.txt")
    checksum = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    fetch_dataset("http://nowhere.invalid/set.tar", tmp_path / "set", checksum)
    assert (tmp_path / "set" / "x.txt").read_text() == "abc"
