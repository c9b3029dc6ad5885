"""Compiled graphs, kept on disk for the next process that compiles the same one.

MindSpore's own compile cache tells graphs apart by the source files of the program alone: another
network, learning rate or class weight of the same program gets the graph that was compiled first.
Here every graph has a folder of its own, named by a fingerprint of all that it is compiled from.
"""

import functools
import hashlib
import logging
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer

from src.utils.console import stderr_to_log
from src.utils.files import user_cache
from src.utils.versions import version

log = logging.getLogger(__name__)

_KEPT = 32  # graphs; of more, the one whose last use lies back furthest goes
_CONTEXT = ("mode", "device_target", "jit_level", "runtime_num_threads")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, np.generic, np.dtype)
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))

_served = False  # this process


@contextmanager
def compile_cache(cell: nn.Cell, *inputs: Tensor) -> Iterator[None]:
    """Compiling `cell` for inputs of these shapes, and nothing else, within takes a kept graph.

    One that is not there yet, or is damaged, is made. It serves the first graph of a process alone:
    MindSpore reads the folder's name once. Without a folder that can be written to, nothing is
    kept; who has turned on MindSpore's own cache, `MS_COMPILER_CACHE_ENABLE`, gets that.
    """
    global _served
    # MindSpore reads the program's file, which there is none of in an interactive session
    if _served or "MS_COMPILER_CACHE_ENABLE" in os.environ or not os.path.isfile(sys.argv[0]):
        yield
        return
    try:
        path = user_cache() / "graphs" / fingerprint(cell, *inputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    except (OSError, RuntimeError) as error:  # read-only, or no home
        log.debug("compiled graphs are not kept: %s", error)
        yield
        return
    _served = True
    try:
        known = path.is_dir()
        if known:
            log.info("the graph that an earlier run compiled is used: %s", path)
            os.utime(path)
        with _enabled(path if known else aside), stderr_to_log():
            yield
        if not known:
            _keep(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _enabled(path: Path) -> Iterator[None]:
    os.environ.update(MS_COMPILER_CACHE_ENABLE="1", MS_COMPILER_CACHE_PATH=str(path))
    try:
        yield
    finally:
        del os.environ["MS_COMPILER_CACHE_ENABLE"], os.environ["MS_COMPILER_CACHE_PATH"]


def _keep(made: Path, path: Path) -> None:
    try:
        made.rename(path)
        kept = sorted(path.parent.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
    except OSError as error:  # another process was first
        log.debug("%s: the graph is not kept: %s", path, error)
        return
    for graph in kept[:-_KEPT]:
        shutil.rmtree(graph, ignore_errors=True)


def fingerprint(cell: nn.Cell, *inputs: Tensor) -> str:
    """A hash of what the graph of `cell` is compiled from, for inputs of these shapes and types.

    That is: every attribute of the cell and of all that it refers to, constants by value and
    parameters by name, shape and type; the source of the modules in use; MindSpore's version and
    settings.
    """
    described = _Description()
    described.add(version("mindspore"))
    described.add([ms.get_context(name) for name in _CONTEXT])
    described.add({k: v for k, v in os.environ.items() if k.startswith(("MS_", "ONEDNN_"))})
    described.add([(tuple(value.shape), str(value.dtype)) for value in inputs])
    described.add(cell)
    described.add_sources()
    return described.hash.hexdigest()[:32]


@functools.cache
def _attributes_of_cells() -> frozenset[str]:
    """What MindSpore keeps in every cell, such as the time it was made."""
    return frozenset(vars(nn.Cell()))


class _Description:
    """Feeds a hash with values and all that they refer to, each object once."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}  # the objects too: their ids stay theirs
        self._packages: set[str] = set()

    def add(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._put(f"{type(value).__name__} {value!r}")
        elif id(value) in self._seen:
            self._put(f"again {self._seen[id(value)][0]}")
        else:
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
            self._put(f"{value.name} {value.shape} {value.dtype} {value.requires_grad}")
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
            if value.__module__.partition(".")[0] == "mindspore":  # `value_and_grad` has the time
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
        """The files of all loaded modules that are not installed, or that what was added is of."""
        packages = self._packages - {"mindspore"}
        for name, module in sorted(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            used = not file.startswith(_INSTALLED) or name.partition(".")[0] in packages
            if file.endswith(".py") and used and os.path.isfile(file):  # torch has one of no file
                self._put(name)
                self.hash.update(Path(file).read_bytes())
