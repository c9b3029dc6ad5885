"""Videos written frame by frame through OpenCV. Frames are H×W×3 uint8 RGB."""

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from src.utils.errors import UserError


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float) -> None:
    """Writes an MPEG-4 video to a temporary file and renames it; odd sides lose their last pixel.

    MPEG-4 counts time in at most 65,535 units a second: other rates are rounded to what it can.

    If `frames` raises an error, the frames before it are kept.

    Raises:
        UserError: It cannot be written; or what `frames` raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    writer = None
    rate = min(max(rate, 0.002), 65535)
    rate = round(rate, next(digits for digits in (3, 2, 1, 0) if rate * 10**digits <= 65535))
    try:
        for frame in frames:
            if writer is None:
                size = (frame.shape[1], frame.shape[0])
                writer = cv2.VideoWriter(
                    str(temporary), cv2.VideoWriter_fourcc(*"mp4v"), rate, size
                )
                if not writer.isOpened():
                    raise UserError(f"{path}: this OpenCV cannot write an MPEG-4 video there")
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()
        if temporary.exists():
            os.replace(temporary, path)
