"""Predictions of images and videos, written as pictures; a broken file does not stop the others."""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from src.engine.segmenter import Segmenter
from src.utils.console import progress
from src.utils.errors import UserError
from src.utils.video import VIDEO_SUFFIXES, Video
from src.visualization.overlays import overlay, write_ids, write_image, write_palette
from src.visualization.video import write_video

log = logging.getLogger(__name__)


def write_predictions(
    segmenter: Segmenter,
    files: Sequence[Path],
    read: Callable[[Path], np.ndarray | Video],
    output: Path,
    palette: np.ndarray,
    limit_frames: int | None = None,
    shown: Sequence[int] | None = None,
    opacity: float = 0.5,
) -> list[str]:
    """Writes `<stem>.png` (class ids), `<stem>_palette.png` and `<stem>_overlay.png` of an image.

    Of a video `<stem>_overlay.mp4`, and ids and palette picture of each frame in the folder
    `<stem>`, from `000001.png`. A broken file does not stop the others.

    Args:
        segmenter: Predicts class ids.
        files: With differing stems.
        read: Gives a file's H×W×3 uint8 RGB image or its video, or raises UserError.
        output: Folder of the pictures; what it holds is not overwritten.
        palette: C×3 uint8 RGB.
        limit_frames: Only so many frames of a video.
        shown: Ids of the classes that overlays show; None shows all.
        opacity: Of overlays, from 0 to 1.

    Returns:
        A line for each file that could not be segmented to its end.
    """
    sources: dict[str, Path] = {}  # by what is made of them
    for path in files:
        moving = path.suffix.lower() in VIDEO_SUFFIXES
        for end in ("", "_overlay.mp4") if moving else (".png", "_palette.png", "_overlay.png"):
            name = path.stem + end
            if (output / name).exists():
                raise UserError(f"output={output}: holds {name} already; give another folder")
            if name in sources:
                raise UserError(
                    f"{sources[name]} and {path}: both would give {name}; predict them apart"
                )
            sources[name] = path
    output.mkdir(parents=True, exist_ok=True)
    failed = []

    def overlays(video: Video, folder: Path) -> Iterator[np.ndarray]:
        folder.mkdir()
        count = min(video.count, limit_frames or video.count)
        frames = bar.add_task(f"  {folder.name}", total=count or None)
        try:
            for number, frame in enumerate(islice(video, limit_frames), 1):
                yield segment(frame, folder / f"{number:06d}")
                bar.advance(frames)
        finally:
            bar.remove_task(frames)

    def segment(image: np.ndarray, stem: Path) -> np.ndarray:
        ids = segmenter.predict(image)
        write_ids(stem.with_name(f"{stem.name}.png"), ids)
        write_palette(stem.with_name(f"{stem.name}_palette.png"), ids, palette)
        if shown is not None:
            ids = np.where(np.isin(ids, shown), ids, 255)  # as void, which stays clear
        return overlay(image, ids, palette, opacity)

    with progress() as bar:
        task = bar.add_task("predicting", total=len(files))
        for path in files:
            stem = output / path.stem
            try:
                content = read(path)
                if isinstance(content, Video):
                    target = output / f"{path.stem}_overlay.mp4"
                    write_video(target, overlays(content, stem), content.rate)
                else:
                    write_image(output / f"{path.stem}_overlay.png", segment(content, stem))
            except UserError as error:
                failed.append(str(error))
                log.error("%s", error)
            bar.advance(task)
    return failed
