"""The accelerator cards of this machine, counted without asking MindSpore for one."""

import os
import re
from itertools import takewhile
from pathlib import Path

# Variables that list the cards visible to a process, which then numbers them from 0
VISIBLE_CARDS = {"Ascend": "ASCEND_RT_VISIBLE_DEVICES", "GPU": "CUDA_VISIBLE_DEVICES"}
_NAME = re.compile(r"\d+$|GPU-|MIG-")  # CUDA takes UUIDs, too
_DEVICE_FILES = {"Ascend": "davinci[0-9]*", "GPU": "nvidia[0-9]*"}


def visible_cards(target: str, device_files: Path = Path("/dev")) -> list[str]:
    """Names of the cards that this process may see, as the variable of `target` takes them.

    The list ends before the first invalid name, as in CUDA: "-1" hides all cards.

    Args:
        target: "CPU", which has none, "GPU" or "Ascend".
        device_files: The directory of the system's device files.
    """
    if target not in VISIBLE_CARDS:
        return []
    given = os.environ.get(VISIBLE_CARDS[target])
    if given is not None:
        names = (name.strip() for name in given.split(","))
        return list(takewhile(_NAME.match, names))
    return [str(number) for number, _ in enumerate(device_files.glob(_DEVICE_FILES[target]))]
