"""PyTorch checkpoints without PyTorch: a reader of `torch.save` files that runs nothing in them.

Both formats are read: the zip archive of PyTorch 1.6 and later, and the stream of pickles before.
"""

import io
import logging
import math
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from src.utils.errors import UserError

log = logging.getLogger(__name__)

# What torch calls the parameters of a batch normalisation
TORCH_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # 0x1950a86a20f9469cfc6c, pickled
_LIGHTNING = "pytorch-lightning_version"
_REPAIR = "where it was made, save the parameters alone: torch.save(model.state_dict(), 'x.pth')"
_LIGHTNING_CHECKPOINT = f"a PyTorch Lightning checkpoint; {_REPAIR}"
# What training scripts call the parameters among the other things they save; the first one counts
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "params_ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("backbone", "encoder", "weights", "params"),
)

_DTYPES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
}


def is_torch_file(path: Path) -> bool:
    """Whether `torch.save` (or `torch.jit.save`) wrote the file, whatever its suffix is."""
    with path.open("rb") as file:
        if _is_legacy(file):
            return True
        return zipfile.is_zipfile(file) and _root(zipfile.ZipFile(file)) is not None


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads the parameters of a network, by the file's names.

    A dictionary around them, as training scripts save it, is opened; the other things in it are
    passed over. The file is data: tensors, containers and numbers are read, and a file that names
    any other class or function is refused before that is even looked up.

    Returns:
        Read-only arrays, empty where the file holds no named tensors; half precision and bfloat16
        become float32.

    Raises:
        UserError: The file holds Python objects (a whole model), is PyTorch Lightning's or
            TorchScript's, comes from a big-endian machine, or holds several networks.
        Exception: The file is damaged; of the kind that its parsers raise.
    """
    try:
        with path.open("rb") as file:
            if _is_legacy(file):
                return _read_legacy(file)
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive)
    except _Refused as error:
        raise UserError(f"{path}: {error}") from error


class _Refused(Exception):
    """What the file is instead, and what to do."""


class _Storage(NamedTuple):
    """A run of numbers in the file, to which tensors refer."""

    kind: str
    key: str
    size: int

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(_DTYPES[self.kind]).itemsize

    def decode(self, data: bytes) -> np.ndarray:
        array = np.frombuffer(data, _DTYPES[self.kind], self.size)
        if self.kind == "BFloat16Storage":  # the upper half of a float32
            return (array.astype("<u4") << 16).view("<f4")
        return array.astype("<f4") if self.kind == "HalfStorage" else array


class _Tensor(NamedTuple):
    """A strided view of a storage; offset and strides are counted in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, numbers: np.ndarray) -> np.ndarray:
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        outside = math.prod(self.shape) > 0 and last >= len(numbers)
        if outside or min((self.offset, *self.shape, *self.strides)) < 0:
            raise pickle.UnpicklingError(f"{self} reaches outside its storage")
        strides = [s * numbers.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, strides, writeable=False
        )


class _Ignored:
    """An object that scripts save beside the parameters; it is not made."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


_ALLOWED: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.Size": tuple,
    "torch.device": _Ignored,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    "collections.Counter": Counter,
    "argparse.Namespace": _Ignored,
    # NumPy's numbers and arrays, as a best score or class weights
    "numpy.dtype": _Ignored,
    "numpy.ndarray": _Ignored,
    **{
        f"numpy.{core}.multiarray.{name}": _Ignored
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    "_codecs.encode": _Ignored,
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, list, dict, tuple, int, float, complex)
    },
}


class _Unpickler(pickle.Unpickler):
    """Knows `_ALLOWED` and the storages, and looks up no other name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # strings of Python 2
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return name
        if full in _ALLOWED:
            return _ALLOWED[full]
        what = "a whole pickled model" if module.startswith("torch.nn.") else "Python objects"
        raise _Refused(f"holds {what} ({full}), only parameters are read; {_REPAIR}")

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, size, *view = pid
        if tag != "storage" or kind not in _DTYPES or view not in ([], [None]):
            raise pickle.UnpicklingError(f"unknown reference {pid!r}")
        self.storages[key] = _Storage(kind, key, size)
        return self.storages[key]


def _is_legacy(file: BinaryIO) -> bool:
    head = file.read(32)
    file.seek(0)
    return _LEGACY_MAGIC in head


def _root(archive: zipfile.ZipFile) -> str | None:
    """The folder inside the archive that torch puts everything into."""
    ending = "/data.pkl"
    found = (name.removesuffix(ending) for name in archive.namelist() if name.endswith(ending))
    return next(found, None)


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    root, entries = _root(archive), archive.namelist()
    if f"{root}/constants.pkl" in entries:
        raise _Refused(f"a TorchScript archive; {_REPAIR}")
    if f"{root}/byteorder" in entries:
        _require_little_endian(archive.read(f"{root}/byteorder") == b"little")
    pickled = archive.read(f"{root}/data.pkl")
    if _LIGHTNING.encode() in pickled:  # its hyperparameters may be objects
        raise _Refused(_LIGHTNING_CHECKPOINT)
    tensors = _parameters(_Unpickler(io.BytesIO(pickled)).load())
    numbers = {
        storage: storage.decode(archive.read(f"{root}/data/{storage.key}"))
        for storage in {tensor.storage for tensor in tensors.values()}
    }
    return {name: tensor.view(numbers[tensor.storage]) for name, tensor in tensors.items()}


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    _magic, _version, machine = (_Unpickler(file).load() for _ in range(3))
    _require_little_endian(machine["little_endian"])
    unpickler = _Unpickler(file)
    content = unpickler.load()
    if isinstance(content, dict) and _LIGHTNING in content:
        raise _Refused(_LIGHTNING_CHECKPOINT)
    tensors = _parameters(content)
    needed = {tensor.storage for tensor in tensors.values()}
    numbers = {}
    for key in _Unpickler(file).load():  # all storages follow in this order
        storage = unpickler.storages[key]
        if struct.unpack("<q", file.read(8)) != (storage.size,):
            raise pickle.UnpicklingError(f"storage {key} has another size than its tensors")
        data = file.read(storage.nbytes)
        if len(data) < storage.nbytes:
            raise EOFError(f"storage {key} is cut off")
        if storage in needed:
            numbers[storage] = storage.decode(data)
    return {name: tensor.view(numbers[tensor.storage]) for name, tensor in tensors.items()}


def _require_little_endian(little: bool) -> None:
    if not little:
        raise _Refused(
            "written by a big-endian machine; save it again on a little-endian one, as x86 and "
            "ARM are: torch.save(torch.load(FILE), 'x.pth')"
        )


def _parameters(content: Any) -> dict[str, _Tensor]:
    """The tensors of the network in what was saved."""
    found = dict(_dictionaries_of_tensors(content, ()))
    # A best score beside the dictionary of the network is no network
    paths = [path for path in found if path] or list(found)
    best = [path for path in paths if _rank(path) == min(map(_rank, paths))]
    if len(best) > 1:
        keys = "".join(f"[{key!r}]" for key in best[0])
        raise _Refused(
            f"holds several networks ({', '.join(map('.'.join, paths))}); save one of them: "
            f"torch.save(torch.load(FILE){keys}, 'x.pth')"
        )
    if len(paths) > 1:
        log.info("of %s in the file, %s is read", ", ".join(map(".".join, paths)), best[0][-1])
    return found[best[0]] if best else {}


def _rank(path: tuple[str, ...]) -> int:
    return _WRAPPERS.index(path[-1]) if path and path[-1] in _WRAPPERS else len(_WRAPPERS)


def _dictionaries_of_tensors(
    content: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, _Tensor]]]:
    """What has names and tensors, and the keys that lead there; not the states of optimizers."""
    if not isinstance(content, dict) or len(path) > 2 or "optim" in "".join(path):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, _Tensor)}
    if tensors:
        yield path, tensors
    for name, value in named.items():
        yield from _dictionaries_of_tensors(value, (*path, name))
