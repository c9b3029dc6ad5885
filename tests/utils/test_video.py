"""Videos: order, colours, and what is kept of one that breaks off."""

import cv2
import numpy as np
import pytest

from src.utils.errors import UserError
from src.utils.video import Video
from src.visualization.video import write_video


def frames(count, shape=(32, 48)):
    for i in range(count):
        yield np.full((*shape, 3), (10 * i, 100, 250 - 10 * i), np.uint8)


def test_frames_come_back_in_order_and_red_stays_red(tmp_path):
    write_video(tmp_path / "clip.mp4", frames(12), rate=10)
    video = Video(tmp_path / "clip.mp4")
    assert (video.count, video.rate) == (12, 10)
    for i, frame in enumerate(video):
        assert np.abs(frame.mean(axis=(0, 1)) - (10 * i, 100, 250 - 10 * i)).max() < 8
    assert len(list(video)) == 12  # a second time as well


@pytest.mark.parametrize(
    "rate, written",
    [
        (66.6667, 66.67),
        (24000 / 1001, 23.976),
        (119.88012, 119.88),
        (239.7602, 239.76),
        (1000.04, 1000),
        (90_000, 65535),
        (1 / 60, 0.017),
        (1e-9, 0.002),
    ],
)
def test_any_frame_rate_is_written(tmp_path, rate, written):
    write_video(tmp_path / "clip.mp4", frames(3), rate)
    video = Video(tmp_path / "clip.mp4")
    assert video.rate == pytest.approx(written, abs=1e-6)
    assert len(list(video)) == 3


def test_what_came_before_an_error_is_kept(tmp_path):
    def breaking():
        yield from frames(4)
        raise UserError("enough")

    with pytest.raises(UserError, match="enough"):
        write_video(tmp_path / "clip.mp4", breaking(), rate=10)
    assert len(list(Video(tmp_path / "clip.mp4"))) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_file_that_is_no_video_is_named_and_one_that_breaks_off_gives_its_frames(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4: cannot be read as a video"):
        Video(tmp_path / "text.mp4")
    with pytest.raises(UserError, match=r"nothing\.mp4: no such file"):
        Video(tmp_path / "nothing.mp4")
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    for frame in frames(20):
        writer.write(frame)
    writer.release()
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    read = []
    with pytest.raises(UserError, match=r"cut\.avi: breaks off after \d+ of 20 frames"):
        read.extend(Video(tmp_path / "cut.avi"))  # extends frame by frame
    assert 0 < len(read) < 20
