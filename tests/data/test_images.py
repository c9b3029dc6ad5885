"""What to predict on: a file, a folder, a pattern; images and videos."""

import numpy as np
import pytest
from PIL import Image

from src.data.images import find_files, read_file, read_image
from src.utils.errors import UserError
from src.utils.video import Video
from src.visualization.video import write_video


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "c.jpeg"):
        Image.fromarray(np.full((4, 5, 3), 200, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_file_a_folder_and_a_pattern_give_images_sorted_by_name(folder):
    assert find_files(folder / "b.png") == [folder / "b.png"]
    assert [p.name for p in find_files(folder)] == ["a.jpg", "b.png", "c.jpeg"]
    assert [p.name for p in find_files(folder / "*.jp*")] == ["a.jpg", "c.jpeg"]


def test_brackets_in_a_pattern_are_those_of_names(tmp_path):
    folder = tmp_path / "set [1]"
    folder.mkdir()
    Image.fromarray(np.full((4, 5, 3), 200, np.uint8)).save(folder / "a[b].png")
    assert find_files(folder / "a[*.png") == [folder / "a[b].png"]


def test_nothing_found_says_what_to_give(folder, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        find_files(folder / "nothing")
    with pytest.raises(UserError, match="no such file"):
        find_files(folder / "*.bmp")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image or video"):
        find_files(folder / "empty")


def test_two_images_of_one_stem_are_refused_since_their_predictions_would_collide(folder):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "a.png")
    with pytest.raises(UserError, match=r"a\.(jpg|png) and a\.(jpg|png) share a stem"):
        find_files(folder)


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


def test_a_video_is_found_beside_images_and_read_as_its_frames(folder):
    frames = [np.full((32, 48, 3), (value, 0, 0), np.uint8) for value in (40, 120, 200)]
    write_video(folder / "clip.mp4", frames, rate=12.5)
    assert [p.name for p in find_files(folder)] == ["a.jpg", "b.png", "c.jpeg", "clip.mp4"]
    video = read_file(folder / "clip.mp4")
    assert isinstance(video, Video) and (video.count, video.rate) == (3, 12.5)
    read = list(video)
    assert [frame.shape for frame in read] == [(32, 48, 3)] * 3
    assert all(abs(int(f[16, 24, 0]) - v) < 8 for f, v in zip(read, (40, 120, 200), strict=True))
