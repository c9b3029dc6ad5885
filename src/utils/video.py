"""Videos read and written frame by frame through OpenCV. Frames are H×W×3 uint8 RGB."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from src.utils.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

# Silences FFmpeg, which reads it with the first video: what is wrong with a file is said by us
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class Video:
    """The frames of a video file, in order; sound is left out.

    Args:
        path: The file.

    Attributes:
        count: Frames that the file claims to have.
        rate: Frames a second.

    Raises:
        UserError: The file cannot be read; while iterating: it ends before its time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        capture = self._open()
        self.count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if rate > 0 else 25.0  # 0 or NaN where the container tells none
        readable, _ = capture.read()
        capture.release()
        if not readable:
            raise self._unreadable()

    def __iter__(self) -> Iterator[np.ndarray]:
        capture, read = self._open(), 0
        try:
            while True:
                readable, frame = capture.read()
                if not readable:
                    break
                read += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        # Some containers tell the duration alone, from which the count is reckoned
        if read < 0.95 * self.count - 1:
            raise UserError(
                f"{self.path}: breaks off after {read} of {self.count} frames; what was read of "
                "it is done"
            )

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise self._unreadable()
        return capture

    def _unreadable(self) -> UserError:
        return UserError(
            f"{self.path}: cannot be read as a video (cut off, or of an unknown codec)"
        )
