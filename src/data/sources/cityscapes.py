"""Cityscapes (Cordts et al. 2016), as its archives unpack."""

from pathlib import Path

import numpy as np

from src.data.sources.base import Source
from src.data.sources.file_lists import Sample
from src.utils.errors import UserError, nearest

# Of the classes that are evaluated, in the order of their train ids (cityscapesscripts, labels.py)
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_COLORS = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
_IDS_OF = {"labelIds": _IDS, "labelTrainIds": tuple(range(len(_IDS)))}
_SPLITS = ("train", "val")  # test has no labels


class CityscapesSource(Source):
    """`leftImg8bit/<split>/<city>` and the labels in `gtFine/<split>/<city>`.

    Args:
        root: The folder that holds these two.
        labels: Which label files: `labelIds` of the archive, or `labelTrainIds`, which
            cityscapesscripts makes of it. They give the same class ids.
    """

    palette = np.array(_COLORS, np.uint8)

    def __init__(self, root: str | Path, labels: str = "labelIds") -> None:
        if labels not in _IDS_OF:
            raise UserError(
                f"dataset.source.labels={labels}: expected labelIds or labelTrainIds"
                f"{nearest(labels, _IDS_OF)}"
            )
        self.root, self.labels = Path(root), labels
        self.ids = _IDS_OF[labels]
        self.void_ids = tuple(n for n in range(34) if n not in _IDS) if labels == "labelIds" else ()

    def prepare(self) -> None:
        """Checks that the folders are there."""
        for name in ("leftImg8bit", "gtFine"):
            if not (self.root / name).is_dir():
                raise UserError(
                    f"dataset.root={self.root}: no folder {name} in it; register at "
                    f"https://www.cityscapes-dataset.com and unpack {name}_trainvaltest.zip there"
                )

    def samples(self, split: str) -> list[Sample]:
        """See `Source.samples`."""
        self.prepare()
        images = sorted((self.root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        if split == "test":
            raise UserError("split 'test': Cityscapes keeps its labels; take split=val")
        if not images:
            raise UserError(
                f"split '{split}': {self.root}/leftImg8bit has no images of it; expected one of "
                f"{', '.join(_SPLITS)}{nearest(split, _SPLITS)}"
            )
        return [self._sample(image) for image in images]

    def _sample(self, image: Path) -> Sample:
        name = image.name.removesuffix("_leftImg8bit.png")
        folder = self.root / "gtFine" / image.parent.relative_to(self.root / "leftImg8bit")
        return Sample(name, image, folder / f"{name}_gtFine_{self.labels}.png")
