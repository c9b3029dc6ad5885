"""Training batches and evaluation samples of one dataset."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any
from unicodedata import normalize

import cv2
import mindspore.dataset as ds
import numpy as np

from src.data.augmentations import Augmentation
from src.data.copy_paste import CopyPaste
from src.data.folds import Folds
from src.data.loader import EpochSampler, Prefetched, TrainCrops, TrainSamples
from src.data.mindrecord import MindRecordFile, Rows
from src.data.preparation.conversion import PreparedSplit, prepare_split, scan_record
from src.data.preparation.inspection import report_rows
from src.data.preparation.labels import LabelRules
from src.data.rare_class_sampling import RareClassSampling, class_pixels
from src.data.sources.base import Source
from src.data.sources.file_lists import few
from src.data.transforms import TrainTransform, decode_image, decode_label
from src.utils.errors import UserError
from src.utils.normalization import Normalization
from src.utils.palette import voc_palette
from src.utils.processes import available_cores, default_workers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalSample:
    """One image at its own size: H×W×3 uint8 RGB, and its H×W uint8 label."""

    name: str
    image: np.ndarray
    label: np.ndarray


class EvalSamples(Sequence[EvalSample]):
    """The samples of a split, decoded when asked for; safe to index from several threads."""

    def __init__(self, rows: Rows, count: int) -> None:
        self._rows = rows
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> EvalSample:  # type: ignore[override]  # no slices
        if not 0 <= index < self._count:
            raise IndexError(index)
        name, image, label = self._rows[index]
        return EvalSample(name, decode_image(image), decode_label(label))


class SegDataModule:
    """A dataset for training and evaluation; nothing is read before `prepare`.

    Args:
        root: Folder (or file) of the dataset, given to `source`.
        source: Makes the source from `root` (see `src.data.sources.folder`).
        prepared_dir: Where the MindRecord files go.
        num_classes: Number of classes; None takes as many as there are class names.
        class_names: Names in the order of the ids; None asks the source, then counts class_0 ….
        ignore_index: Label of pixels that count for nothing.
        train_split, val_split: Names of the splits to train and to validate on; of several, the
            samples of all.
        folds: Divides the samples of `train_split` (all samples, where splits are drawn at random)
            into so many, see `Folds`: `val_split` is then `fold<number>`, the one held out, and
            `train_split` the others. None does not.
        fold, fold_by, fold_seed: `held_out`, `group_by` and `seed` of `Folds`.
        batch_size: Images a step.
        crop_size, scale_range, flip, augmentations, max_class_share: See `TrainTransform`.
        rare_class_sampling: Temperature of `RareClassSampling`; None takes each image once an
            epoch.
        copy_paste, copy_paste_probability: Names of the classes that are pasted into other crops,
            and how often, see `CopyPaste`; None or no names paste nothing.
        num_workers: Threads that decode and augment, at most as many as there are cores; None takes
            these, up to eight.
        limit_samples: Only the first so many samples of each split; None takes all.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        root: str | Path,
        source: Callable[..., Source],
        prepared_dir: str | Path,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        train_split: str | Sequence[str] = "train",
        val_split: str | Sequence[str] = "val",
        folds: int | None = None,
        fold: int | None = None,
        fold_by: str | None = None,
        fold_seed: int = 0,
        batch_size: int = 4,
        crop_size: Sequence[int] | None = (512, 512),
        scale_range: Sequence[float] | None = (0.5, 2.0),
        flip: float = 0.5,
        augmentations: Sequence[Augmentation] = (),
        max_class_share: float | None = None,
        rare_class_sampling: float | None = None,
        copy_paste: Sequence[str] | None = None,
        copy_paste_probability: float = 0.5,
        num_workers: int | None = None,
        limit_samples: int | None = None,
        seed: int = 0,
    ) -> None:
        self._joined: dict[str, tuple[str, ...]] = {}  # splits by the name of several together
        self.train_split = self._join("train_split", train_split)
        self.val_split = self._join("val_split", val_split)
        self._folds = None if folds is None else Folds(folds, fold, fold_by, fold_seed)
        if folds is None and (fold is not None or fold_by is not None):
            given = f"fold={fold}" if fold is not None else f"fold_by={fold_by}"
            raise UserError(f"dataset.{given}: nothing is divided; give dataset.folds=5 too")
        self._divided = self.train_split
        if folds is not None:
            self.val_split, self.train_split = f"fold{fold}", f"all but fold{fold}"
        self.source = source(root=Path(root))
        self.prepared_dir = Path(prepared_dir)
        found = self.source.class_names
        if num_classes is None and not (found or class_names):
            self.source.prepare()  # the root may be absent, which is to be told first
            first = self._joined[self._divided][0]
            if self.source.record_file(first) is None:
                self.source.samples(first)
        self.class_names = _class_names(class_names, found, num_classes)
        self.num_classes = len(self.class_names)
        self.ignore_index = ignore_index
        palette = self.source.palette
        self.palette = voc_palette(self.num_classes) if palette is None else palette
        self.label_rules = LabelRules(
            self.num_classes,
            ignore_index,
            palette,
            tuple(self.source.void_ids),
            self.source.ids,
            "" if "ids" in signature(source).parameters else "dataset=folder ",
        )
        self.crop_size, self.batch_size = crop_size, batch_size
        self.num_workers = num_workers or default_workers(available_cores())
        self.limit_samples = limit_samples
        self.seed = seed
        self._transform = TrainTransform(
            crop_size, scale_range, flip, ignore_index, augmentations, max_class_share
        )
        self._temperature = rare_class_sampling
        self._copy_paste = None
        if copy_paste:
            if crop_size is None:
                raise UserError(
                    f"dataset.copy_paste=[{','.join(copy_paste)}] with dataset.crop_size=null: "
                    "whole images differ in size; set dataset.copy_paste=null, or give "
                    "dataset.crop_size=[512,512]"
                )
            self._copy_paste = CopyPaste(copy_paste, self.class_names, copy_paste_probability)
        if crop_size is None and batch_size != 1:
            raise UserError(
                f"dataset.crop_size=null with dataset.batch_size={batch_size}: whole images differ "
                "in size and cannot share a batch; set dataset.batch_size=1"
            )
        self._splits: dict[str, PreparedSplit] = {}

    def prepare(self, *splits: str) -> dict[str, dict[str, Any]]:
        """Fetches or makes the dataset, converts the splits to MindRecord; returns their reports.

        Done once: later calls and later runs reuse what is there and unchanged. Folds and splits
        of several are rows of these files.
        """
        return {split: self._report(split) for split in splits}

    def record_file(self, split: str) -> Path:
        """The MindRecord file of a split, prepared if need be.

        Raises:
            UserError: The split is a fold, or several splits.
        """
        if self._is_fold(split) or len(self._parts(split)) > 1:
            raise UserError(
                f"split '{split}': has no MindRecord file of its own; leave out dataset.folds, and "
                "give one split"
            )
        return self._prepared(split).path

    def train_crops(self) -> TrainCrops:
        """The augmented training crops by key, before they are normalised."""
        rows, count = self._open(self.train_split)
        sampling = self._sampling(rows, count)
        return TrainCrops(rows, count, self._transform, self.seed, sampling, self._copy_paste)

    def train_batches(
        self,
        normalization: Normalization,
        first_epoch: int = 1,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> ds.Dataset:
        """Batches of images N×3×H×W float32 (normalised) and labels N×H×W int32, shuffled.

        N is `batch_size * accumulate`: this process's part of a step's images, of which there are
        `world_size` times as many. What is left at an epoch's end is dropped.

        Args:
            normalization: What the network's weights expect of an image.
            first_epoch: The first pass over the dataset is this epoch, from 1.
            accumulate: See `src.engine.train_step.TrainStep`.
            rank, world_size: See `src.device.process_group.ProcessGroup`.

        Raises:
            UserError: The split holds less than one batch of all processes.
        """
        samples = TrainSamples(self.train_crops(), normalization)
        batch = self.batch_size * accumulate
        if len(samples) < batch * world_size:
            times = f" × trainer.accumulate={accumulate}" if accumulate > 1 else ""
            times += f" × {world_size} processes" if world_size > 1 else ""
            raise UserError(
                f"dataset.batch_size={self.batch_size}{times}: split '{self.train_split}' holds "
                f"{len(samples)} samples, less than one batch; set dataset.batch_size to "
                f"{max(1, len(samples) // (accumulate * world_size))} or less"
            )
        if self.crop_size is None and batch > 1:
            raise UserError(
                f"dataset.crop_size=null with trainer.accumulate={accumulate}: whole images differ "
                "in size and cannot share a step; set trainer.accumulate=1"
            )
        self._warn_of_shared_samples()
        cv2.setNumThreads(1)  # the workers are the threads
        workers = min(self.num_workers, available_cores())
        if workers < self.num_workers:
            log.info(
                "dataset.num_workers=%d: this machine has %d cores, using as many",
                self.num_workers,
                workers,
            )
        sampler = EpochSampler(len(samples), self.seed, first_epoch, batch, rank, world_size)
        dataset = ds.GeneratorDataset(
            Prefetched(samples, sampler, workers),
            ["images", "labels"],
            sampler=sampler,
            num_parallel_workers=1,
            python_multiprocessing=False,
        )
        return dataset.batch(batch, drop_remainder=True)

    def eval_samples(self, split: str | None = None) -> EvalSamples:
        """The samples of `split` (by default the validation split) at native size."""
        return EvalSamples(*self._open(split or self.val_split))

    def _sampling(self, rows: Rows, count: int) -> RareClassSampling | None:
        if self._temperature is None:
            return None
        pixels = class_pixels(rows, count, self.num_classes, self.ignore_index)
        sampling = RareClassSampling(pixels, self._temperature)
        named = zip(self.class_names, sampling.probabilities, strict=True)
        log.info(
            "rare class sampling: images are drawn for %s",
            ", ".join(f"{name} {probability:.1%}" for name, probability in named),
        )
        return sampling

    def _join(self, key: str, splits: str | Sequence[str]) -> str:
        """The name of one or several splits together."""
        names = (splits,) if isinstance(splits, str) else tuple(splits)
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"dataset.{key}=[{','.join(names)}]: expected one split or several, each once"
            )
        self._joined["+".join(names)] = names
        return "+".join(names)

    def _parts(self, split: str) -> tuple[str, ...]:
        return self._joined.get(split, (split,))

    def _is_fold(self, split: str) -> bool:
        return self._folds is not None and split in (
            self.train_split,
            *(f"fold{number}" for number in range(self._folds.count)),
        )

    def _prepared(self, split: str) -> PreparedSplit:
        """A split of the source, converted at its first use."""
        if split not in self._splits:
            self.source.prepare()
            if (record := self.source.record_file(split)) is not None:
                self._splits[split] = scan_record(record, self.prepared_dir, self.label_rules)
            else:
                self._splits[split] = prepare_split(
                    self.source, split, self.prepared_dir, self.label_rules
                )
        return self._splits[split]

    def _report(self, split: str) -> dict[str, Any]:
        if self._is_fold(split) or len(self._parts(split)) > 1:
            return report_rows(self._rows(split), split, self.label_rules)
        return self._prepared(split).report

    def _open(self, split: str) -> tuple[Rows, int]:
        rows = self._rows(split)
        return rows, min(len(rows), self.limit_samples or len(rows))

    def _rows(self, split: str) -> Rows:
        """The rows of a split, of several together or of folds.

        Raises:
            UserError: The split is divided into folds, of which some are trained on.
        """
        if self._folds is None:
            return Rows(self._files(self._parts(split)))
        divided = self._parts(self._divided)
        if self.source.is_drawn(divided[0]):
            divided = ("train", "val")  # all samples
        if not self._is_fold(split):
            if split in divided:
                raise UserError(
                    f"split '{split}': dataset.folds={self._folds.count} divides it; give "
                    f"split={self.val_split}, which is held out in training, or another fold"
                )
            return Rows(self._files(self._parts(split)))
        files = self._files(divided)
        fold_of = self._folds.divide([name for file in files for name in file.names])
        if split == self.train_split:
            return Rows(files, np.flatnonzero(fold_of != self._folds.held_out))
        return Rows(files, np.flatnonzero(fold_of == int(split.removeprefix("fold"))))

    def _warn_of_shared_samples(self) -> None:
        """One line where the network is validated on what it is trained on.

        Samples of one name may be different ones, of folders `train` and `val` with numbered
        images; then so are their images.
        """
        (trained, train_count), (validated, count) = map(
            self._open, (self.train_split, self.val_split)
        )
        row_of = {name: row for row, name in enumerate(trained.names[:train_count])}
        shared = [row for row, name in enumerate(validated.names[:count]) if name in row_of]
        if shared:
            name, image, _ = validated[shared[0]]
            if trained[row_of[name]][1] == image:
                log.warning(
                    "split '%s': %d of its %d samples are trained on too, in split '%s': its "
                    "scores say nothing of unseen images; dataset.val_split=NAME names another",
                    self.val_split,
                    len(shared),
                    count,
                    self.train_split,
                )

    def _files(self, splits: Sequence[str]) -> list[MindRecordFile]:
        files = [MindRecordFile(self._prepared(split).path) for split in splits]
        shared = Counter(name for file in files for name in set(file.names))
        if twice := [name for name, count in shared.items() if count > 1]:
            raise UserError(
                f"splits {', '.join(splits)}: names in more than one of them: {few(twice)}; leave "
                "a split out, or take these names out of its list"
            )
        return files


def _class_names(
    configured: Sequence[str] | None, found: Sequence[str] | None, num_classes: int | None
) -> tuple[str, ...]:
    if found and configured and tuple(found) != tuple(configured):
        raise UserError(
            f"dataset.class_names={_shown(configured)}: the files in dataset.root name "
            f"{_shown(found)}; make them agree, or leave one of them out"
        )
    names = found or configured or [f"class_{i}" for i in range(num_classes or 0)]
    if num_classes is None:
        num_classes = len(names)
    origin = "dataset.class_names" if configured else "the table of classes in dataset.root"
    if num_classes == 1:
        raise UserError(
            f"{origin if names else 'dataset.num_classes'}: one class ({_shown(names)}) cannot be "
            "told from anything: add the background as a class, named in the order of the ids in "
            "the label files"
        )
    if not 1 < num_classes <= 255:
        raise UserError(
            f"dataset.num_classes={num_classes}: expected 2 to 255; give dataset.num_classes, "
            "dataset.class_names or a classes.txt in dataset.root"
        )
    if len(names) != num_classes:
        raise UserError(
            f"dataset.num_classes={num_classes}: {origin} names {len(names)}; make them agree"
        )
    names = tuple(str(name) for name in names)
    alike = Counter(normalize("NFC", name).casefold() for name in names)
    twice = [name for name in names if alike[normalize("NFC", name).casefold()] > 1]
    if twice:
        raise UserError(
            f"{origin}: {_shown(twice)}: names of classes that differ in nothing or in case alone; "
            "expected a name of its own for each"
        )
    return names


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + ", …" * (len(names) > 8)
