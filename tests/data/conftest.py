"""A dataset to fill, and where it is converted to."""

from pathlib import Path

import pytest

from tests.data.samples import Folder


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "raw")


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "prepared"
