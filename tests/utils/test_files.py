"""Files that are whole or not there, with the permissions that the user's umask asks for."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from src.utils.errors import UserError
from src.utils.files import atomic_write, write_text

OTHER_USER = 12345


@pytest.fixture
def folder_of_an_ordinary_user():
    """A folder that belongs to the effective user, who is not root while the test runs."""
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    try:
        if root:
            os.chown(folder, OTHER_USER, OTHER_USER)
            os.seteuid(OTHER_USER)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def write_read_only(path: Path) -> None:
    """As MindSpore's `save_checkpoint` does."""
    path.write_text("new")
    path.chmod(0o400)


def test_a_writer_that_leaves_its_file_read_only_is_no_obstacle(folder_of_an_ordinary_user):
    path = folder_of_an_ordinary_user / "best.ckpt"
    for _ in range(2):
        atomic_write(path, write_read_only)
    assert path.read_text() == "new"


def test_permissions_are_those_of_the_umask(tmp_path, umask):
    atomic_write(tmp_path / "best.ckpt", write_read_only)
    write_text(tmp_path / "summary.json", "{}")
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("best.ckpt", "summary.json")]
    assert modes == [0o640, 0o640]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(UserError, match="No space left"):
        atomic_write(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
