"""The kernels as a shared library: compiled for this machine's CPU, kept in the user's cache."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import mindspore as ms
from mindspore import ops

from src.utils.files import user_cache

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread")


@functools.cache
def compiled_library() -> Path | None:
    """The path of the compiled kernels; None, with a line in the log, if they cannot be compiled.

    The file's name has a hash of source, compiler and CPU, so that different machines can share a
    home directory. `CXX` names the compiler, g++ or clang++, and may include arguments.
    """
    compiler = _compiler()
    if platform.system() != "Linux" or not compiler:
        wanted = os.environ.get("CXX") or "g++"
        log.info("no C++ compiler (%s): networks are slower on the CPU", wanted)
        return None
    key = hashlib.sha256(SOURCE.read_bytes())
    key.update("\n".join([*compiler, *OPTIONS, _cpu()]).encode())
    try:
        path = user_cache() / f"kernels-{key.hexdigest()[:16]}.so"
        if not path.exists():
            log.info("compiling the CPU kernels, once for this machine → %s", path)
            _compile(compiler, path)
        threads = min(len(os.sched_getaffinity(0)), ms.get_context("runtime_num_threads"))
        ctypes.CDLL(str(path)).set_num_threads(threads)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # also without a home
        reason = getattr(error, "stderr", None) or str(error)
        log.warning(
            "no CPU kernels, networks are slower: %s",
            reason.strip().partition("\n")[0],
        )
        return None
    return path


def _compiler() -> list[str]:
    """The command of the compiler: what `CXX` says, else g++ or clang++; empty if there is none."""
    for command in (os.environ.get("CXX") or "g++", "clang++"):
        try:
            program, *arguments = shlex.split(command)
        except ValueError:  # an open quote, or blanks alone
            continue
        if path := shutil.which(program):
            return [path, *arguments]
    return []


def _compile(compiler: list[str], path: Path) -> None:
    """Compiles to a temporary file and renames it; of several processes, the last one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        made = Path(directory, path.name)
        command = [*compiler, *OPTIONS, str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        made.replace(path)


def _cpu() -> str:
    """The properties of the CPU that `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def operator(name: str, outputs: int = 1) -> ops.Custom:
    """A kernel of the library as an operator on float32 tensors."""
    kernel = ops.Custom(
        f"{compiled_library()}:{name}",
        out_shape=None,  # by the library's NAMEInferShape, which dynamic graphs need
        out_dtype=(lambda *types: types[0]) if outputs == 1 else lambda *t: (t[0],) * outputs,
        func_type="aot",
    )
    kernel.add_prim_attr("reg_op_name", name)  # read, but not set, where shapes are inferred
    if outputs > 1:
        kernel.add_prim_attr("multi_output", True)
    return kernel
