"""What ties processes together."""

import ctypes
import signal
import sys

_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_with_parent(number: signal.Signals) -> None:
    """Asks Linux to send this process a signal when its parent ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, number)
