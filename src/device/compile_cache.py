"""Compiled graphs, kept on disk for the next process that compiles the same one.

MindSpore's own compile cache tells graphs apart by the source files of the program alone: another
network, learning rate or class weight of the same program gets the graph that was compiled first.
Here every graph has a folder of its own, named by a fingerprint of all that it is compiled from.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn

from src.device.cell_description import Description
from src.utils.console import stderr_to_log
from src.utils.files import user_cache
from src.utils.versions import version

log = logging.getLogger(__name__)

GRAPHS = "graphs"  # their folder in the user's cache
KEPT = 32  # graphs; beyond these the least recently used one is deleted
_CONTEXT = ("mode", "device_target", "jit_level", "runtime_num_threads")

_served = False  # this process


@contextmanager
def compile_cache(cell: nn.Cell, *inputs: Tensor) -> Iterator[None]:
    """Within it, compiling `cell` for inputs of these shapes uses a kept graph, if there is one.

    Nothing else may be compiled within. A graph that is missing or damaged is compiled and kept.
    Only the first graph of a process is cached: MindSpore reads the folder's name once. If the
    folder cannot be written, nothing is kept; MindSpore's own cache, once enabled by
    `MS_COMPILER_CACHE_ENABLE`, is used instead of this one.
    """
    global _served
    # MindSpore reads the program's file; an interactive session has none
    if _served or "MS_COMPILER_CACHE_ENABLE" in os.environ or not os.path.isfile(sys.argv[0]):
        yield
        return
    try:
        path = user_cache() / GRAPHS / fingerprint(cell, *inputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    except (OSError, RuntimeError) as error:  # read-only, or no home
        log.debug("compiled graphs are not kept: %s", error)
        yield
        return
    _served = True
    try:
        known = path.is_dir()
        if known:
            log.info("using the graph that an earlier run compiled: %s", path)
            os.utime(path)
        with _enabled(path if known else temporary), stderr_to_log():
            yield
        if not known:
            _keep(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _enabled(path: Path) -> Iterator[None]:
    os.environ.update(MS_COMPILER_CACHE_ENABLE="1", MS_COMPILER_CACHE_PATH=str(path))
    try:
        yield
    finally:
        del os.environ["MS_COMPILER_CACHE_ENABLE"], os.environ["MS_COMPILER_CACHE_PATH"]


def _keep(compiled: Path, path: Path) -> None:
    try:
        compiled.rename(path)
        kept = sorted(path.parent.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
    except OSError as error:  # another process was first
        log.debug("%s: the graph is not kept: %s", path, error)
        return
    for graph in kept[:-KEPT]:
        shutil.rmtree(graph, ignore_errors=True)


def fingerprint(cell: nn.Cell, *inputs: Tensor) -> str:
    """A hash of what the graph of `cell` is compiled from, for inputs of these shapes and types.

    That is: every attribute of the cell and of all that it refers to, constants by value and
    parameters by name, shape and type; the source of the modules in use; MindSpore's version and
    settings.
    """
    described = Description()
    described.add(version("mindspore"))
    described.add([ms.get_context(name) for name in _CONTEXT])
    described.add({k: v for k, v in os.environ.items() if k.startswith(("MS_", "ONEDNN_"))})
    described.add([(tuple(value.shape), str(value.dtype)) for value in inputs])
    described.add(cell)
    described.add_sources()
    return described.hash.hexdigest()[:32]
