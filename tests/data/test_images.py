"""What to predict on: a file, a folder, a pattern; images and videos."""

import cv2
import numpy as np
import pytest
from PIL import Image

from src.data.images import find_files, read_file, read_image
from src.data.preparation.checks import check_files
from src.data.preparation.labels import LabelRules
from src.data.preparation.problem import Problem
from src.data.sources.file_lists import Sample
from src.data.transforms import decode_image
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


def test_hidden_files_are_passed_over(folder):
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / ".z.png").write_bytes(b"")
    assert [p.name for p in find_files(folder)] == ["a.jpg", "b.png", "c.jpeg"]
    assert [p.name for p in find_files(folder / "*.png")] == ["b.png"]


def test_an_image_of_too_many_pixels_is_a_line_of_its_own(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)  # refused from twice as many on
    with pytest.raises(UserError, match=r"a\.jpg: .*megapixels; cut it into tiles"):
        read_image(folder / "a.jpg")


COLOR = np.zeros((16, 24, 3), np.uint8)
COLOR[:8], COLOR[8:] = (200, 30, 60), (20, 220, 250)
GREY = np.array(Image.fromarray(COLOR).convert("L"))


def saved_as(mode: str, suffix: str, path, **options):
    image = Image.fromarray(COLOR)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(path / f"x{suffix}", **options)
    return path / f"x{suffix}"


@pytest.mark.parametrize(
    "mode, suffix, options",
    [
        ("RGB", ".png", {}),
        ("RGBA", ".png", {}),
        ("L", ".png", {}),
        ("LA", ".png", {}),
        ("1", ".png", {}),
        ("P", ".png", {}),
        ("P", ".png", {"transparency": 1}),
        ("P", ".bmp", {}),
        ("P", ".tif", {}),
        ("1", ".tif", {"compression": "group4"}),
        ("CMYK", ".jpg", {"quality": 100}),
        ("CMYK", ".tif", {}),
        ("RGB", ".tif", {"compression": "jpeg"}),
        ("L", ".jpg", {}),
        ("RGBA", ".webp", {"lossless": True}),
    ],
)
def test_an_image_of_any_colour_type_is_the_same_rgb_in_training_and_in_prediction(
    tmp_path, mode, suffix, options
):
    path = saved_as(mode, suffix, tmp_path, **options)
    predicted = read_image(path)
    label = tmp_path / "label.png"
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(label)
    trained = decode_image(check_files(Sample("x", path, label), LabelRules(2)).data)
    assert predicted.dtype == np.uint8 and np.array_equal(trained, predicted)
    expected = {"1": (0, 0, 0), "L": (GREY[0, 0],) * 3, "LA": (GREY[0, 0],) * 3}
    wanted = np.array(expected.get(mode, COLOR[0, 0]), int)
    assert np.abs(predicted[2, 3] - wanted).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_an_image_of_16_bits_is_refused_in_training_and_in_prediction(tmp_path, suffix, shape):
    path, label = tmp_path / f"x{suffix}", tmp_path / "label.png"
    cv2.imwrite(str(path), np.full(shape, 1000, np.uint16))
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(label)
    with pytest.raises(UserError, match="uint16 values; expected 8 bits a channel: scale them"):
        read_image(path)
    with pytest.raises(Problem, match="uint16 values; expected 8 bits a channel: scale them"):
        check_files(Sample("x", path, label), LabelRules(2))


def test_an_exif_rotation_is_not_followed_and_told(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved_as("RGB", ".jpg", tmp_path, exif=exif)
    assert read_image(path).shape == (16, 24, 3)
    assert "EXIF would turn it; taken as stored, as in training" in caplog.text


def test_a_video_is_found_beside_images_and_read_as_its_frames(folder):
    frames = [np.full((32, 48, 3), (value, 0, 0), np.uint8) for value in (40, 120, 200)]
    write_video(folder / "clip.mp4", frames, rate=12.5)
    assert [p.name for p in find_files(folder)] == ["a.jpg", "b.png", "c.jpeg", "clip.mp4"]
    video = read_file(folder / "clip.mp4")
    assert isinstance(video, Video) and (video.count, video.rate) == (3, 12.5)
    read = list(video)
    assert [frame.shape for frame in read] == [(32, 48, 3)] * 3
    assert all(abs(int(f[16, 24, 0]) - v) < 8 for f, v in zip(read, (40, 120, 200), strict=True))
