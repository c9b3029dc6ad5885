"""Operations that stand for a device's: right, wrong, and in ways that end a process."""

import os
import signal
import time

import numpy as np

from src.check_device.check import Check, NotSupported


def right():
    return {"output": np.array([1.0, -4.0])}


def wrong():
    return {"output": np.array([1.0, -3.0])}


def raising():
    raise RuntimeError("no such kernel")


def crashing():
    os.kill(os.getpid(), signal.SIGSEGV)


def hanging():
    time.sleep(1000)


def unsupported():
    raise NotSupported("of other devices")


def checks(target):
    """Each kind but the one that hangs, and a right one at the end."""
    kinds = (wrong, raising, crashing, unsupported, right)
    return [Check("layers", f.__name__, f, right, "NumPy", 0.1) for f in kinds]
