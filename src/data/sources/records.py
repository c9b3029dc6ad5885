"""Datasets that are MindRecord files already."""

import logging
from pathlib import Path

import numpy as np

from src.data.fetch.archive import fetch_dataset
from src.data.sources.base import Source
from src.utils.errors import UserError, nearest

log = logging.getLogger(__name__)

TUTORIAL_URL = (
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/dataset_fcn8s.tar"
)


class RecordSource(Source):
    """MindRecord files in the tutorial's schema: `data` and `label` are encoded images.

    Args:
        root: A folder with `<split>.mindrecord`, or one file for every split.
        val_file: The file of split `val`, in place of what `root` has for it.
    """

    class_names: tuple[str, ...] | None = None
    palette: np.ndarray | None = None

    def __init__(self, root: str | Path, val_file: str | Path | None = None) -> None:
        self.root = Path(root)
        self.val_file = Path(val_file) if val_file else None

    def prepare(self) -> None:
        """Checks that the root is there."""
        if not self.root.exists():
            raise UserError(
                f"dataset.root={self.root}: no such file or folder; expected FILE.mindrecord, or a "
                "folder with train.mindrecord and val.mindrecord"
            )

    def record_file(self, split: str) -> Path:
        """The MindRecord file of a split.

        Raises:
            UserError: There is none.
        """
        self.prepare()
        if split == "val" and self.val_file:
            if not self.val_file.is_file():
                raise UserError(
                    f"dataset.source.val_file={self.val_file}: no such file; expected a MindRecord "
                    "file"
                )
            return self.val_file
        shared = self._shared_file()
        if shared is not None:
            if split != "train":
                log.warning(
                    "%s serves split '%s' and training alike: its scores say nothing of unseen "
                    "images; dataset.source.val_file names another file",
                    shared,
                    split,
                )
            return shared
        path = self.root / f"{split}.mindrecord"
        if not path.is_file():
            there = sorted(p.stem for p in self.root.glob("*.mindrecord"))
            raise UserError(
                f"split '{split}': no file {path} (there: {', '.join(there) or 'none'})"
                f"{nearest(split, there)}; dataset.root=FILE.mindrecord takes one for all splits"
            )
        return path

    def _shared_file(self) -> Path | None:
        return self.root if self.root.is_file() else None


class TutorialSource(RecordSource):
    """The tutorial's own MindRecord file, `mindname.mindrecord`, fetched where `root` is absent.

    Args:
        root: The folder to unpack the archive to, or the file.
        val_file: See `RecordSource`.
        url: Address of the archive.
        checksum: See `src.data.fetch.download.fetch`.
    """

    def __init__(
        self,
        root: str | Path,
        val_file: str | Path | None = None,
        url: str = TUTORIAL_URL,
        checksum: str | None = None,
    ) -> None:
        super().__init__(root, val_file)
        self.url, self.checksum = url, checksum

    def prepare(self) -> None:
        """Downloads the archive unless it is there."""
        fetch_dataset(self.url, self.root, self.checksum)
        if self._shared_file() is None:
            raise UserError(
                f"dataset.root={self.root}: no mindname.mindrecord in it; set dataset.root to an "
                "absent folder to have it fetched, or use dataset=mindrecord"
            )

    def _shared_file(self) -> Path | None:
        if self.root.is_file():
            return self.root
        return next(iter(sorted(self.root.rglob("mindname.mindrecord"))), None)
