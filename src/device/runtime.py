"""Settings of a whole process: oneDNN's instruction set, memory, device, mode, seed.

MindSpore is imported inside the functions, to keep `--help`, `--cfg job` and shell completion
fast.
"""

import ctypes
import functools
import logging
import os
import sys
from pathlib import Path
from typing import Any

from src.utils.console import stderr_to_log
from src.utils.errors import UserError, error_summary
from src.utils.versions import version

log = logging.getLogger(__name__)

_ISA = "ONEDNN_MAX_CPU_ISA"

_note = ""

_capped = False  # by us

# glibc's malloc: the option's number, the variable by which a user sets it, our value in bytes
_MALLOC_OPTIONS = (
    (-1, "MALLOC_TRIM_THRESHOLD_", 512 << 20),  # free memory at a heap's end that is kept
    (-3, "MALLOC_MMAP_THRESHOLD_", 32 << 20),  # larger blocks are mapped anew each time
)


def _cpu_has_avx512() -> bool:
    try:
        return " avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: the variable does no harm there
        return True


def limit_onednn_isa() -> None:
    """Keeps MindSpore's convolutions from oneDNN's reference kernel.

    MindSpore 2.9 and 2.10 contain oneDNN 3.10, which on AVX-512 machines computes plain-layout
    convolutions by a kernel some 100 times slower than the one for AVX2. A value the user has set
    stays. To be called before MindSpore is imported for the first time.
    """
    global _note, _capped
    installed = version("mindspore") or "0.0"
    numbers = installed.split(".")
    if _ISA in os.environ:
        _note = f"oneDNN instruction set: {os.environ[_ISA]}, as {_ISA} says"
    elif (int(numbers[0]), int(numbers[1])) < (2, 9):
        _note = f"oneDNN as it is: that of MindSpore {installed} has fast AVX-512 convolutions"
    elif not _cpu_has_avx512():
        _note = "oneDNN as it is: this CPU has no AVX-512, whose convolutions are slow in it"
    elif "mindspore" in sys.modules:
        _note = (
            f"MindSpore was imported first: convolutions may be 100 times slower; set {_ISA}=AVX2"
        )
    else:
        os.environ[_ISA] = "AVX2"
        _capped = True
        _note = (
            f"oneDNN capped at AVX2 ({_ISA}): its AVX-512 convolutions are 100 times slower here"
        )


def take_back_isa_limit() -> bool:
    """Undoes `limit_onednn_isa` if MindSpore is not imported yet; returns whether it did."""
    global _capped
    taken_back = _capped and "mindspore" not in sys.modules
    if taken_back:
        del os.environ[_ISA]
        _capped = False
    return taken_back


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep the memory of freed images for reuse.

    By default it returns blocks of an image's size to the kernel, which must clear every page again
    on first use. As measured here, that took half of the time of a training image, and since pages
    are provided one at a time, a second worker gained nothing. A value the user has set stays;
    without glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # not on Windows
        return
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    for option, variable, value in _MALLOC_OPTIONS:
        if variable not in os.environ:
            libc.mallopt(option, value)


def choose_device(target: str, id: int = 0) -> None:
    """Chooses the device of this process; a process can do so once.

    Raises:
        UserError: It is not available.
    """
    import mindspore as ms

    try:
        with stderr_to_log():
            ms.set_device(target, id)
    except (RuntimeError, ValueError) as error:
        log.debug("set_device failed", exc_info=True)
        reason = ". ".join(error_summary(error).split(". ")[:2])  # advice follows
        raise UserError(
            f"device.target={target} device.id={id}: not available on this machine ({reason}); "
            "use device=cpu, or install the MindSpore build and driver of that device"
        ) from error


@functools.cache  # MindSpore refuses a second time
def make_deterministic() -> None:
    """Asks for deterministic kernels; to be called before processes connect, for their sums too."""
    import mindspore as ms

    ms.set_deterministic(True)


def setup_device(
    target: str,
    id: int = 0,
    mode: str = "graph",
    jit_level: str | None = None,
    deterministic: bool = False,
    threads: int | None = None,
) -> None:
    """Chooses the device (see `choose_device`) and the execution mode of this process.

    Args:
        target: "CPU", "GPU" or "Ascend".
        id: Number of the card, from 0.
        mode: "graph" (compiled) or "pynative" (eager, for debugging).
        jit_level: "O0", "O1" or "O2": how far graph mode optimises; None leaves MindSpore's choice.
        deterministic: Deterministic kernels on accelerators; the CPU is deterministic anyway.
        threads: CPU threads of the operators; None takes all cores.
    """
    import mindspore as ms

    modes = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
    context: dict[str, Any] = {"mode": modes[mode]}
    if jit_level is not None:
        context["jit_config"] = {"jit_level": jit_level}
    if threads is not None:
        context["runtime_num_threads"] = threads
    choose_device(target, id)
    keep_freed_memory()
    ms.set_context(**context)
    ms.set_recursion_limit(5000)  # of the compiler: HRNet with our layers passes the default, 1000
    if deterministic:
        make_deterministic()
    if target == "CPU":
        log.info(_note)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and MindSpore (initialisers, dropout, dataset)."""
    import random

    import mindspore as ms
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    ms.set_seed(seed)
