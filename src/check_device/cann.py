"""CANN's own Python modules, which MindSpore imports when it needs them."""

import importlib

import mindspore as ms
import numpy as np

from src.check_device.check import Arrays, NotSupported

MODULES = ("te", "hccl")


def import_modules() -> Arrays:
    """Imports them: the operator compiler and the communication library."""
    if ms.get_context("device_target") != "Ascend":
        raise NotSupported("CANN is for Ascend")
    for name in MODULES:  # each needs certain packages, in certain versions
        importlib.import_module(name)
    return {"missing": np.zeros(1)}
