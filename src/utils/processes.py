"""The cores a process may use, and its end with the one that started it."""

import ctypes
import os
import signal
import sys

_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)


def own_cores() -> list[int]:
    """Numbers of the cores this process may run on; all of them if the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_cores() -> int:
    """How many cores this process may run on."""
    return len(own_cores())


def default_workers(cores: int) -> int:
    """The default number of threads that read images ahead.

    A third of their work holds Python's global interpreter lock, which limits their number.
    """
    return min(cores, 8)


def end_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Asks Linux to send this process a signal when its parent ends, however it ends.

    Args:
        number: The signal.
        parent: Process id; if it has ended already, the signal comes at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, number)
        if parent not in (None, os.getppid()):
            os.kill(os.getpid(), number)
