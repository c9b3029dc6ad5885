"""PASCAL VOC 2012 and its usual enlargement by the Semantic Boundaries Dataset (SBD)."""

import logging
from pathlib import Path

from src.data.fetch.archive import fetch_dataset
from src.data.sources.file_lists import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    Entry,
    Files,
    Labels,
    Sample,
    few,
    index_files,
    pair,
    read_list,
)
from src.data.sources.folder import FolderSource
from src.utils.errors import UserError

log = logging.getLogger(__name__)

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
VOC_CHECKSUM = "md5:6cd6e144f989b92b3379bac3b3de84fd"
SBD_URL = (
    "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
    "benchmark.tgz"
)
SBD_CHECKSUM = "md5:82b4d87ceb2ed10f6038a1cba92111cb"
_USUAL_COUNTS = (10582, 1449)  # trainaug, val


class VocSource(FolderSource):
    """VOC 2012 as its devkit has it; fetched where `root` is absent.

    Splits are the devkit's lists (train, val, trainval) and any other list put beside them.

    Args:
        root: The folder that holds `VOCdevkit/VOC2012` or `VOC2012`, or that folder itself.
        url: Address of the archive: the official one, or a mirror's.
        checksum: See `src.data.fetch.download.fetch`.
    """

    def __init__(
        self, root: str | Path, url: str = VOC_URL, checksum: str | None = VOC_CHECKSUM
    ) -> None:
        super().__init__(root, "JPEGImages", "SegmentationClass", val_fraction=None)
        self.url, self.checksum = url, checksum

    @property
    def folder(self) -> Path:
        """The folder that holds `JPEGImages`."""
        return _holding("JPEGImages", self.root, "VOCdevkit/VOC2012", "VOC2012")

    def prepare(self) -> None:
        """Downloads the archive (2.0 GB) unless the dataset is there."""
        fetch_dataset(self.url, self.root, self.checksum)


class VocAugSource(VocSource):
    """VOC 2012 with SBD's labels for training; other splits are VOC's.

    Split `train` (or `trainaug`) is the union of VOC's train, SBD's train and SBD's val without
    VOC's val: 1,464 + 6,820 + 2,298 = 10,582 images. Where both label an image, VOC's label
    counts. A list `trainaug.txt` beside VOC's has precedence over the union, and a folder
    `SegmentationClassAug` of id PNGs beside VOC's folders replaces SBD itself.

    Args:
        root: See `VocSource`.
        sbd_root: The folder that holds `benchmark_RELEASE/dataset` or `dataset`, or that folder
            itself; fetched where absent.
        url, checksum: See `VocSource`.
        sbd_url, sbd_checksum: The same for SBD.
    """

    def __init__(
        self,
        root: str | Path,
        sbd_root: str | Path,
        url: str = VOC_URL,
        checksum: str | None = VOC_CHECKSUM,
        sbd_url: str = SBD_URL,
        sbd_checksum: str | None = SBD_CHECKSUM,
    ) -> None:
        super().__init__(root, url, checksum)
        self.sbd_root = Path(sbd_root)
        self.sbd_url, self.sbd_checksum = sbd_url, sbd_checksum

    def prepare(self) -> None:
        """Downloads the archives (VOC 2.0 GB, SBD 1.4 GB) unless the datasets are there."""
        super().prepare()
        if not self._converted.is_dir():
            fetch_dataset(self.sbd_url, self.sbd_root, self.sbd_checksum)

    def samples(self, split: str) -> list[Sample]:
        """See `Source.samples`."""
        if split not in ("train", "trainaug"):
            return super().samples(split)
        voc_train = {sample.name for sample in super().samples("train")}
        val = {sample.name for sample in super().samples("val")}
        added, images, sbd_labels = self._added()
        images = {**images, **self._images(split)[0]}
        labels: Labels = {**sbd_labels, **self._labels(split)}
        own = self._lists(images, "trainaug").get("trainaug")
        if own:
            entries = read_list(own, self.folder, images)
        else:
            entries = list(map(Entry, sorted((voc_train | added) - val)))
        shared = val.intersection(entry.name for entry in entries)
        if shared:
            raise UserError(
                f"{own}: lists samples of VOC's val: {few(shared)}; remove them, or scores on val "
                "mean nothing"
            )
        counts = (len(entries), len(val))
        log.info("VOC with SBD: %d training samples, %d in val, none in both", *counts)
        if counts != _USUAL_COUNTS:
            log.warning(
                "VOC with SBD usually has %d training samples and %d in val, here %d and %d: lists "
                "are missing or altered, results compare with no published ones",
                *_USUAL_COUNTS,
                *counts,
            )
        return pair(entries, images, labels, own or self.folder)

    @property
    def _converted(self) -> Path:
        return self.folder / "SegmentationClassAug"

    def _added(self) -> tuple[set[str], Files, Files]:
        """What SBD adds: names, images and labels."""
        if self._converted.is_dir():
            labels = index_files(self._converted, LABEL_SUFFIXES)
            return set(labels), {}, labels
        folder = _holding("cls", self.sbd_root, "benchmark_RELEASE/dataset", "dataset")
        for name in ("cls", "img", "train.txt", "val.txt"):
            if not (folder / name).exists():
                raise UserError(
                    f"dataset.source.sbd_root={self.sbd_root}: no {name} in it; expected SBD's "
                    "benchmark_RELEASE, or an absent folder to have it fetched"
                )
        images = index_files(folder / "img", IMAGE_SUFFIXES)
        labels = index_files(folder / "cls", (".mat",))
        lists = [read_list(folder / f"{s}.txt", folder, images) for s in ("train", "val")]
        return {entry.name for entries in lists for entry in entries}, images, labels


def _holding(name: str, root: Path, *below: str) -> Path:
    """The first of the folders below `root` that holds `name`; `root` if none does."""
    return next((root / b for b in below if (root / b / name).is_dir()), root)
