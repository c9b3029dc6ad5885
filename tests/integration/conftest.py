"""A tiny dataset on the disk, and whole commands run as a person types them."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def make_dataset(root: Path, train: int = 10, val: int = 4) -> Path:
    """A VOC-layout folder: bright squares (1) and dark discs (2) on grey, sizes that differ."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    names = {"train": [f"t{i:02d}" for i in range(train)], "val": [f"v{i:02d}" for i in range(val)]}
    rng = np.random.default_rng(0)
    for split, members in names.items():
        for i, name in enumerate(members):
            image = rng.integers(100, 140, (70 + i, 90 - i, 3), np.uint8)
            label = np.zeros(image.shape[:2], np.uint8)
            x, y = (int(v) for v in rng.integers(10, 30, 2))
            cv2.rectangle(image, (x, y), (x + 24, y + 24), (220, 220, 220), -1)
            cv2.rectangle(label, (x, y), (x + 24, y + 24), 1, -1)
            cv2.circle(image, (64, 50), 14, (20, 20, 20), -1)
            cv2.circle(label, (64, 50), 14, 2, -1)
            label[:2] = 255
            cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), image)
            cv2.imwrite(str(root / "SegmentationClass" / f"{name}.png"), label)
        lines = "".join(f"{name}\n" for name in members)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(lines)
    (root / "classes.txt").write_text("background\nsquare\ndisc\n")
    return root


class Workshop:
    """A working directory with a dataset, in which commands of a project folder are run."""

    def __init__(self, path: Path, project: Path = ROOT) -> None:
        self.path, self.project = path, project
        self.data = path / "shapes_and_discs"

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        """Runs `python -m src.<command>`, expects the exit code, returns what it printed."""
        environment = os.environ | {
            "PYTHONPATH": str(self.project),
            "COLUMNS": "160",
        }
        result = subprocess.run(
            [sys.executable, "-m", f"src.{command}", *arguments],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        printed = result.stdout + result.stderr
        assert result.returncode == code, printed
        return printed

    def train(self, output: str, *arguments: str, code: int = 0) -> str:
        """A short training run of a tiny FCN-8s on the dataset."""
        return self.run(
            "train",
            "dataset=folder",
            f"dataset.root={self.data}",
            "dataset.crop_size=[64,64]",
            "dataset.batch_size=2",
            "model/backbone=vgg_slim",
            "model.backbone.width=0.0625",
            "trainer.max_epochs=2",
            "print_config=false",
            f"output_dir={output}",
            *arguments,
            code=code,
        )


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    path = tmp_path_factory.mktemp("workshop")
    make_dataset(path / "shapes_and_discs")
    return Workshop(path)
