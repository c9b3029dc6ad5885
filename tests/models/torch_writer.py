"""`torch.save` for tests without torch: the zip format, of float32 arrays in any containers."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


def save_torch(content: Any, path: Path) -> Path:
    """Writes `content`; its arrays become tensors."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=2)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/version", "3")
        for key, array in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


class View(NamedTuple):
    """A tensor that is a part of an array: offset, shape and strides, in elements."""

    base: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """What is pickled as a global name, whether or not there is such a thing."""

    module: str
    name: str

    def __call__(self) -> None: ...


class _Storage(NamedTuple):
    array: np.ndarray


class _Pickler(pickle._Pickler):  # the Python one, whose dispatch table can be extended
    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.storages: list[np.ndarray] = []

    def save_name(self, name: _Name) -> None:
        self.write(f"c{name.module}\n{name.name}\n".encode())

    def save_view(self, view: View) -> None:
        rebuild = _Name("torch._utils", "_rebuild_tensor_v2")
        self.save_reduce(rebuild, (_Storage(view.base), *view[1:], False, {}))

    def save_array(self, array: np.ndarray) -> None:
        array = array.copy(order="C")
        strides = tuple(s // array.itemsize for s in array.strides)
        self.save_view(View(array, 0, array.shape, strides))

    dispatch.update({_Name: save_name, View: save_view, np.ndarray: save_array})

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        self.storages.append(obj.array.astype(np.float32))
        key = str(len(self.storages) - 1)
        return ("storage", _Name("torch", "FloatStorage"), key, "cpu", obj.array.size)
