"""What ties processes together."""

import ctypes
import os
import signal
import sys

_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)


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
