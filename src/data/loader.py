"""Training samples in the order of an epoch, made ahead of the network by threads."""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import mindspore.dataset as ds
import numpy as np

from src.data.copy_paste import CopyPaste
from src.data.mindrecord import MindRecordFile, Rows
from src.data.rare_class_sampling import RareClassSampling
from src.data.transforms import (
    Region,
    TrainTransform,
    decode_image,
    decode_label,
    network_input,
)
from src.utils.map_ahead import map_ahead
from src.utils.normalization import Normalization

AHEAD = 4  # samples that a worker may be ahead of who takes them


class EpochSampler(ds.Sampler):
    """Yields `epoch * size + index` for a seeded permutation of each epoch.

    MindSpore tells a random-access source neither the epoch nor the position, and its worker
    threads share NumPy's global generator. With the epoch inside the key, augmentation is a
    function of (seed, epoch, index): the same for any number of workers, and for a run that
    starts at a later epoch.

    Of several processes, each gets its `batch` of every `batch * world_size` keys, so that all
    together train on what one process would; keys that do not fill a batch of all are left out.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        first_epoch: int = 1,
        batch: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._shares = (size // (batch * world_size), world_size, batch)
        super().__init__(self._shares[0] * batch)
        self._size = size
        self._seed = seed
        self._epoch = first_epoch - 1
        self._rank = rank

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        yield from self.keys(self._epoch)

    def keys(self, epoch: int) -> list[int]:
        """The keys of an epoch, from 1, in the order of training."""
        order = np.random.default_rng((self._seed, epoch)).permutation(self._size)
        shares = order[: math.prod(self._shares)].reshape(self._shares)
        return (epoch * self._size + shares[:, self._rank].ravel()).tolist()

    def following(self, key: int) -> list[int]:
        """The keys of an epoch from `key` on."""
        keys = self.keys(key // self._size)
        return keys[keys.index(key) :]


class TrainCrops:
    """Random access to augmented crops and their labels by the keys of `EpochSampler`.

    With `sampling`, the index in a key is not that of an image, but seeds the draw of one: the
    order of the keys, the shares of processes, resuming and the size of an epoch are the same.
    With `copy_paste`, another image is drawn to paste from, in the same way or evenly among all.
    """

    def __init__(
        self,
        rows: MindRecordFile | Rows,
        size: int,
        transform: TrainTransform,
        seed: int,
        sampling: RareClassSampling | None = None,
        copy_paste: CopyPaste | None = None,
    ) -> None:
        self._rows = rows
        self._size = size
        self._transform = transform
        self._seed = seed
        self._sampling = sampling
        self._copy_paste = copy_paste

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: int) -> tuple[str, np.ndarray, np.ndarray, list[Region]]:
        """Name, H×W×3 uint8 RGB crop, H×W uint8 label and padding."""
        epoch, index = divmod(int(key), self._size)
        rng = np.random.default_rng((self._seed, epoch, index))
        name, image, label, padding = self._crop(index, rng)
        if self._copy_paste is not None and rng.uniform() < self._copy_paste.probability:
            _, *other, _ = self._crop(int(rng.integers(self._size)), rng)
            image, label = self._copy_paste(image, label, padding, *other)
        return name, image, label, padding

    def _crop(
        self, index: int, rng: np.random.Generator
    ) -> tuple[str, np.ndarray, np.ndarray, list[Region]]:
        class_id = None
        if self._sampling is not None:
            index, class_id = self._sampling.draw(rng)
        name, image, label = self._rows[index]
        return name, *self._transform(decode_image(image), decode_label(label), rng, class_id)

    def keys(self, epoch: int) -> list[int]:
        """The keys of an epoch, from 1, in the order of training."""
        return EpochSampler(self._size, self._seed).keys(epoch)


class TrainSamples:
    """Crops as the network takes them: 3×H×W float32, normalised, and H×W int32 labels."""

    def __init__(self, crops: TrainCrops, normalization: Normalization) -> None:
        self._crops = crops
        self._normalization = normalization

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        _, crop, label, padding = self._crops[key]
        return network_input(crop, label, padding, self._normalization)


class RandomAccess(Protocol):
    """Gives samples by their keys, in any order."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: int, /) -> Any: ...


class Prefetched:
    """Samples that `workers` threads make ahead of who takes them, in the order of a sampler.

    MindSpore's `GeneratorDataset` has workers of its own; once it has found no row it looks again
    after 0.1 s, while their queues fill up: two were no faster than one, which it does not wait
    for.
    """

    def __init__(self, samples: RandomAccess, sampler: EpochSampler, workers: int) -> None:
        self._samples = samples
        self._sampler = sampler
        self._workers = workers
        self._upcoming: Iterator[tuple[int, Any]] = iter(())

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        made = next(self._upcoming, None)
        if made is None or made[0] != key:  # an epoch begins, or a resumed run goes on amid one
            keys = self._sampler.following(int(key))
            self._upcoming = map_ahead(self._make, keys, self._workers, AHEAD)
            made = next(self._upcoming)
        return made[1]

    def _make(self, key: int) -> tuple[int, Any]:
        return key, self._samples[key]
