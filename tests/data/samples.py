"""Datasets of a few pixels, and their conversion."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.data.preparation.conversion import prepare_split
from src.data.preparation.labels import LabelRules
from src.data.sources.file_lists import Sample
from src.utils.errors import UserError


@dataclass
class ListedSource:
    """Samples as they are put in."""

    listed: list[Sample] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    palette: np.ndarray | None = None
    void_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] | None = None

    def prepare(self) -> None: ...

    def samples(self, split: str) -> list[Sample]:
        return self.listed


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height))


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def write_numbered(root: Path, labels: Sequence[np.ndarray]) -> Path:
    """A dataset for `FolderSource`, validated on its first image: of each, red is the number."""
    width = len(str(len(labels) - 1))
    names = [f"{i:0{width}}" for i in range(len(labels))]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        image = np.zeros((*label.shape, 3), np.uint8)
        image[..., 2] = i  # OpenCV's red
        cv2.imwrite(str(root / "images" / f"{name}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), label)
    (root / "train.txt").write_text("".join(f"{name}\n" for name in names))
    (root / "val.txt").write_text(f"{names[0]}\n")
    return root


class Folder:
    """Writes images and labels, and lists them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = ListedSource()
        root.mkdir()

    def add(self, name, image=None, label=None, image_suffix=".jpg", label_suffix=".png") -> Sample:
        image = picture(6, 8, len(self.source.listed)) if image is None else image
        label = np.zeros(image.shape[:2], np.uint8) if label is None else label
        sample = Sample(
            name, self.root / f"{name}{image_suffix}", self.root / f"{name}_ids{label_suffix}"
        )
        Image.fromarray(image).save(sample.image)
        Image.fromarray(label).save(sample.label)
        self.source.listed.append(sample)
        return sample


def visible(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir() if p.name != ".lock")


def convert(folder: Folder, out: Path, num_classes: int = 3, **more):
    rules = LabelRules(num_classes, void_ids=folder.source.void_ids, **more)
    return prepare_split(folder.source, "train", out, rules)


def refusal(folder: Folder, out: Path, **more) -> str:
    with pytest.raises(UserError) as caught:
        convert(folder, out, **more)
    assert "\n" not in str(caught.value)
    assert [name for name in visible(out) if not name.endswith("-problems.txt")] == []
    return str(caught.value)
