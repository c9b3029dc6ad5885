"""Images to predict on: a file, a folder, a pattern."""

import numpy as np
import pytest
from PIL import Image

from src.data.images import find_images, read_image
from src.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "c.jpeg"):
        Image.fromarray(np.full((4, 5, 3), 200, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_file_a_folder_and_a_pattern_give_images_sorted_by_name(folder):
    assert find_images(folder / "b.png") == [folder / "b.png"]
    assert [p.name for p in find_images(folder)] == ["a.jpg", "b.png", "c.jpeg"]
    assert [p.name for p in find_images(folder / "*.jp*")] == ["a.jpg", "c.jpeg"]


def test_nothing_found_says_what_to_give(folder, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        find_images(folder / "nothing")
    with pytest.raises(UserError, match="no such file"):
        find_images(folder / "*.bmp")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_images(folder / "empty")


def test_two_images_of_one_stem_are_refused_since_their_predictions_would_collide(folder):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "a.png")
    with pytest.raises(UserError, match=r"a\.(jpg|png) and a\.(jpg|png) share a stem"):
        find_images(folder)


def test_broken_files_are_named(folder):
    whole = (folder / "a.jpg").read_bytes()
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "cut.jpg": whole[:-60],
    }.items():
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_image(folder / name)
    with pytest.raises(UserError, match="missing.jpg"):
        read_image(folder / "missing.jpg")
