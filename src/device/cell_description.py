"""A hash of all that a cell is compiled from, independent of the values of its weights."""

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, np.generic, np.dtype)
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


@functools.cache
def _attributes_of_cells() -> frozenset[str]:
    """Attributes that MindSpore keeps in every cell, such as its creation time."""
    return frozenset([*vars(nn.Cell()), "_cell_init_args"])


class Description:
    """Hashes values and all that they refer to, each object once.

    Args:
        parameter_names: Whether the names of parameters count; without them, blocks at different
            positions of a network may be equal.
    """

    def __init__(self, parameter_names: bool = True) -> None:
        self.hash = hashlib.sha256()
        self._parameter_names = parameter_names
        self._seen: dict[int, tuple[int, Any]] = {}  # keeping the objects keeps their ids unique
        self._packages: set[str] = set()

    def add(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._put(f"{type(value).__name__} {value!r}")
        elif id(value) in self._seen:
            self._put(f"again {self._seen[id(value)][0]}")
        else:
            if not isinstance(value, tuple):  # equal tuples may or may not be one object
                self._seen[id(value)] = len(self._seen), value
            self._put(f"{type(value).__module__}.{type(value).__qualname__}")
            for module in (type(value).__module__, getattr(value, "__module__", None)):
                if isinstance(module, str):
                    self._packages.add(module.partition(".")[0])
            self._add_content(value)

    def _put(self, text: str) -> None:
        self.hash.update(f"{len(text)} {text}\n".encode())

    def _add_content(self, value: Any) -> None:
        if isinstance(value, Parameter):
            name = value.name if self._parameter_names else ""
            self._put(f"{name} {value.shape} {value.dtype} {value.requires_grad}")
        elif isinstance(value, (Tensor, np.ndarray)):
            array = value.asnumpy() if isinstance(value, Tensor) else value
            self._put(f"{array.dtype} {array.shape}")
            self.hash.update(array.tobytes())
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.add(key)
                self.add(item)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for item in value:
                self.add(item)
        elif isinstance(value, (type, ModuleType, BuiltinFunctionType)):
            self._put(f"{getattr(value, '__module__', '')} {value.__name__}")
        elif isinstance(value, MethodType):
            self.add(value.__self__)
            self.add(value.__func__)
        elif isinstance(value, FunctionType):
            self._put(f"{value.__module__} {value.__qualname__}")
            self.add(value.__code__)
            self.add(value.__defaults__)
            enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
            if value.__module__.partition(".")[0] == "mindspore":  # a time in `value_and_grad`
                enclosed = [content for content in enclosed if type(content) is not int]
            self.add(enclosed)
        elif isinstance(value, CodeType):
            self.hash.update(value.co_code)
            self.add(value.co_names)
            self.add(value.co_consts)
        elif isinstance(value, nn.Cell):
            self.add(value.training)
            self.add(value.get_flags())
            self.add(getattr(value, "_cells", {}))
            self.add(getattr(value, "_params", {}))
            own = vars(value).keys() - _attributes_of_cells()
            self.add({name: vars(value)[name] for name in sorted(own)})
        elif not isinstance(value, Initializer):
            if isinstance(value, ops.Primitive):
                self.add([value.name, dict(value.attrs)])
            self.add(getattr(value, "__dict__", {}))

    def add_sources(self) -> None:
        """Adds the files of loaded modules: of this project, and of packages of added objects."""
        packages = self._packages - {"mindspore"}
        for name, module in sorted(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            used = not file.startswith(_INSTALLED) or name.partition(".")[0] in packages
            # PyTorch has modules whose `__file__` does not exist
            if file.endswith(".py") and used and Path(file).is_file():
                self._put(name)
                self.hash.update(Path(file).read_bytes())
