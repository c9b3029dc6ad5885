"""A folder of images and a folder of labels."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from src.data.sources.base import Source
from src.data.sources.class_tables import ClassTable, read_class_table
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
from src.utils.errors import UserError, nearest

__all__ = ["IMAGE_SUFFIXES", "FolderSource", "Sample", "Source"]

log = logging.getLogger(__name__)


class FolderSource(Source):
    """A folder of images and a folder of label files, paired by file name without the extension.

    A split is the list of its name, `ImageSets/Segmentation/<split>.txt` or `<split>.txt`, see
    `read_list`; or a folder of its name within that of the images, as `images/<split>`, or around
    it, as `<split>/images`. Without any of these, `train` and `val` are drawn at random.

    Args:
        root: The folder. In it `classes.txt` names the classes, one a line, or there is a tool's
            table of classes, see `read_class_table`.
        image_dir: Folder below `root`; None takes `JPEGImages`, `images` or `<split>`.
        label_dir: Likewise; None takes `SegmentationClass`, `masks`, `labels` or `<split>annot`.
        label_suffix: What the names of label files have behind those of the images, as `_mask`;
            both may lie in one folder then. None takes that of the table of classes.
        val_fraction: Part of the samples that `val` gets if there are no lists; None refuses to
            draw splits.
        split_seed: Another seed draws another `val`.
        palette: Rows of RGB, 0–255: the colours of the classes, in label files and in pictures,
            then colours of void. None takes those of the table of classes, else VOC's, and the
            indices of palette images.
        void_ids: Numbers in the label files that mean void, beside `ignore_index`.
        ids: Those that mean the classes, in their order; None takes those of the table of classes,
            else 0, 1, 2 …
        origin: Where to get the dataset, for the error when `root` is absent.
    """

    def __init__(
        self,
        root: str | Path,
        image_dir: str | None = None,
        label_dir: str | None = None,
        label_suffix: str | None = None,
        val_fraction: float | None = 0.2,
        split_seed: int = 0,
        palette: Sequence[Sequence[int]] | None = None,
        void_ids: Sequence[int] = (),
        ids: Sequence[int] | None = None,
        origin: str | None = None,
    ) -> None:
        if val_fraction is not None and not 0 < val_fraction < 1:
            raise UserError(
                f"dataset.source.val_fraction={val_fraction}: expected a number between 0 and 1"
            )
        self.root = Path(root)
        self.image_dir, self.label_dir, self.label_suffix = image_dir, label_dir, label_suffix
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self._palette = None if palette is None else _palette(palette)
        self.void_ids = _numbers("void_ids", void_ids)
        self._ids = None if ids is None else _numbers("ids", ids)
        self.origin = origin

    @property
    def folder(self) -> Path:
        """The folder that holds those of images and labels."""
        return self.root

    @property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The names in the table of classes."""
        return self._table.names

    @property
    def palette(self) -> np.ndarray | None:  # type: ignore[override]
        """See `Source`."""
        return self._table.palette if self._palette is None else self._palette

    @property
    def ids(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """See `Source`."""
        return self._table.ids if self._ids is None else self._ids

    @property
    def _table(self) -> ClassTable:
        return read_class_table(self.folder)

    def prepare(self) -> None:
        """Checks that the folder is there."""
        if not self.root.is_dir():
            where = f" (get it from {self.origin})" if self.origin else ""
            raise UserError(
                f"dataset.root={self.root}: no such folder; set dataset.root to that of the "
                f"dataset{where}"
            )

    def samples(self, split: str) -> list[Sample]:
        """See `Source.samples`."""
        images, whole = self._images(split)
        entries, origin = self._entries(split, images, whole)
        labels = {} if all(entry.label for entry in entries) else self._labels(split)
        return pair(entries, images, labels, origin)

    def _entries(self, split: str, images: Files, whole: bool) -> tuple[list[Entry], Path]:
        """The entries of a split, and the list or folder they come from.

        Args:
            whole: All of them are of this split.
        """
        lists = self._lists(images, split)
        if split in lists:
            return self._listed(split, lists, images), lists[split]
        if whole:
            return list(map(Entry, images)), self.folder
        default = lists.get("default") if len(lists) == 1 else None  # CVAT's, of all samples
        fraction = self.val_fraction if split in ("train", "val") else None
        if fraction is None or (lists and default is None):
            there = ", ".join(sorted(lists)) or "none"
            raise UserError(
                f"split '{split}': {self.folder} has no list {split}.txt, there or in "
                f"ImageSets/Segmentation (lists: {there}){nearest(split, lists)}; write one, a "
                "name each line"
            )
        names = (
            images if default is None else [e.name for e in read_list(default, self.folder, images)]
        )
        return list(map(Entry, self._drawn(split, names, fraction))), self.folder

    def is_drawn(self, split: str) -> bool:
        """Whether a split is drawn at random, for want of a list and a folder of it."""
        images, whole = self._images(split)
        drawn = ("train", "val")
        if whole or self.val_fraction is None or split not in drawn:
            return False
        return self._lists(images, split).keys().isdisjoint(drawn)

    def _images(self, split: str) -> tuple[Files, bool]:
        usual = ("JPEGImages", "images", split)
        images, whole = self._files("image_dir", usual, IMAGE_SUFFIXES, split)
        suffix = self._suffix
        if suffix:  # label files may lie among the images
            images = {name: f for name, f in images.items() if not name.endswith(suffix)}
        return images, whole

    @property
    def _suffix(self) -> str:
        return self._table.label_suffix if self.label_suffix is None else self.label_suffix

    def _labels(self, split: str) -> Labels:
        usual = ["SegmentationClass", "masks", "labels", f"{split}annot"]
        suffix = self._suffix
        if suffix:
            usual += ["JPEGImages", "images", split]
        files = self._files("label_dir", usual, LABEL_SUFFIXES, split)[0]
        found = {name.removesuffix(suffix): f for name, f in files.items() if name.endswith(suffix)}
        if not found:
            raise UserError(
                f"{self.folder}: no label file has {suffix} behind the name of an image; check "
                "dataset.source.label_suffix"
            )
        return found

    def _files(
        self, key: str, usual: Sequence[str], suffixes: Sequence[str], split: str
    ) -> tuple[Files, bool]:
        """The files of a kind, and whether their folder is of this split alone."""
        self.prepare()
        configured = getattr(self, key)
        names = [configured] if configured else usual
        for name in names:
            for path, whole in (
                (f"{name}/{split}", True),
                (f"{split}/{name}", True),
                (name, not configured and name.startswith(split)),
            ):
                if (self.folder / path).is_dir():
                    return index_files(self.folder / path, suffixes), whole
        there = {path.suffix.lower() for path in self.folder.rglob("*")}
        if not configured and there.isdisjoint(IMAGE_SUFFIXES):
            raise UserError(
                f"dataset.root={self.folder}: holds no images; give the folder of a dataset, with "
                "images/ and masks/ in it"
            )
        raise UserError(
            f"dataset.root={self.folder}: no folder {' or '.join(names)} in it; check "
            f"dataset.root, or name the folder by dataset.source.{key}"
        )

    def _lists(self, images: Files, split: str) -> dict[str, Path]:
        """The list files by split.

        Beside the folders a text file is one if it begins with an image, or bears the name asked
        for: an empty train.txt is a mistake to be reported, not a file to be ignored.
        """
        texts = [p for p in sorted(self.folder.glob("*.txt")) if p.name != "classes.txt"]
        texts = [p for p in texts if p.stem == split or self._is_list(p, images)]
        texts += sorted((self.folder / "ImageSets" / "Segmentation").glob("*.txt"))
        return {path.stem: path for path in texts}

    def _is_list(self, path: Path, images: Files) -> bool:
        try:
            entries = read_list(path, self.folder, images)
        except UserError:  # a note in another encoding
            return False
        return any(entry.image or entry.name in images for entry in entries[:1])

    def _listed(self, split: str, lists: dict[str, Path], images: Files) -> list[Entry]:
        entries = read_list(lists[split], self.folder, images)
        if split == "train" and "val" in lists:
            names = {entry.name for entry in read_list(lists["val"], self.folder, images)}
            shared = names.intersection(entry.name for entry in entries)
            if shared:
                log.warning("%s: in train and in val: %s", self.folder, few(shared))
        return entries

    def _drawn(self, split: str, images: Iterable[str], val_fraction: float) -> list[str]:
        # Ordered by digest, most samples keep their split when others are added
        def digest(name: str) -> str:
            return hashlib.sha256(f"{self.split_seed}:{name}".encode()).hexdigest()

        names = sorted(images, key=digest)
        if len(names) < 2:
            raise UserError(
                f"{self.folder}: {len(names)} image, which cannot be split into train and val; "
                "add images, two at least, or write train.txt and val.txt, a name each line"
            )
        count = max(1, round(val_fraction * len(names)))
        log.info(
            "%s has no split lists: %d train and %d val samples drawn (split_seed=%d, "
            "val_fraction=%g); train.txt and val.txt in it would define them",
            self.folder,
            len(names) - count,
            count,
            self.split_seed,
            val_fraction,
        )
        return names[:count] if split == "val" else names[count:]


def _numbers(key: str, values: Sequence[int]) -> tuple[int, ...]:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or not all(isinstance(v, int) and 0 <= v <= 65535 for v in values):
        raise UserError(
            f"dataset.source.{key}={values}: expected a list of numbers 0–65535, such as [11]"
        )
    if len(set(values)) < len(values):
        raise UserError(f"dataset.source.{key}={values}: a number stands twice; remove one")
    return tuple(values)


def _palette(rows: Sequence[Sequence[int]]) -> np.ndarray:
    try:
        colors = np.array(rows, np.int64)
    except (TypeError, ValueError, OverflowError):
        colors = np.empty(0, np.int64)
    if colors.shape[1:] != (3,) or colors.min() < 0 or colors.max() > 255:
        raise UserError("dataset.source.palette: expected rows of three numbers 0–255, [R, G, B]")
    unique, counts = np.unique(colors, axis=0, return_counts=True)
    if counts.max() > 1:
        raise UserError(
            f"dataset.source.palette: {unique[counts.argmax()].tolist()} stands twice; expected a "
            "colour of its own for every class"
        )
    return colors.astype(np.uint8)
