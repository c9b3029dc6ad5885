"""A tiny dataset on the disk."""

from pathlib import Path

import cv2
import numpy as np


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
