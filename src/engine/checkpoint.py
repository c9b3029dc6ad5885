"""Checkpoint files: the weights, and the training state that a run resumes from.

`last_state.npz` holds every parameter of network, optimizer and loss scaler together with what
Python keeps (`progress.json`), in one file, so that they cannot come apart; zip's CRC-32 of each
member tells whether it is whole. The state before it stays as `last_state.previous.npz`.
"""

import io
import json
import logging
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.device.dropout import draw_counters
from src.engine.train_step import TrainStep
from src.utils.console import stderr_to_log
from src.utils.errors import UserError
from src.utils.files import atomic_write

log = logging.getLogger(__name__)

STATE = "last_state.npz"
PREVIOUS_STATE = "last_state.previous.npz"
UNUSABLE_STATE = "last_state.unusable.npz"
_PROGRESS = "progress.json"


def save_weights(network: nn.Cell, path: Path) -> None:
    """Writes the network's parameters, by their names in the network, to a `.ckpt` file.

    What serves training alone stays out: counters of draws, cells with `training_only`.
    """
    left_out = draw_counters(network)
    for _, cell in network.cells_and_names():
        if getattr(cell, "training_only", False):
            left_out |= {parameter.name for parameter in cell.get_parameters()}
    content = [
        {"name": parameter.name, "data": parameter}
        for parameter in network.get_parameters()
        if parameter.name not in left_out
    ]

    def write(temporary: Path) -> None:
        with stderr_to_log():  # what goes wrong is ours to say
            ms.save_checkpoint(content, str(temporary))

    atomic_write(path, write)


def save_state(step: TrainStep, progress: dict[str, Any], directory: Path) -> None:
    """Writes the state of a fit between two steps; the newest one there becomes the previous.

    Args:
        step: Its parameters are saved.
        progress: What else there is to save, as JSON can hold it.
        directory: Of the checkpoints.

    Raises:
        UserError: The disk is full or the directory not writable; the state before is unharmed.
    """

    path = directory / STATE

    def write(temporary: Path) -> None:
        if path.exists():
            os.replace(path, directory / PREVIOUS_STATE)  # first: so two fit where three might not
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_PROGRESS, json.dumps(progress, default=_plain))
            for name, parameter in _parameters(step).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, parameter.asnumpy(), allow_pickle=False)

    atomic_write(path, write)


def load_state(step: TrainStep, directory: Path) -> dict[str, Any] | None:
    """Puts the newest whole state of a directory into the parameters of `step`.

    Returns:
        The progress saved with it; None if no state was ever saved.

    Raises:
        UserError: There are files, but none is whole and fits the network and the optimizer.
    """
    reasons = []
    for path in (directory / STATE, directory / PREVIOUS_STATE):
        if not path.exists():
            continue
        try:
            progress, arrays = _read(path, _parameters(step))
        except UserError as error:
            reasons.append(str(error))
            log.warning("not usable: %s", error)
            continue
        for name, parameter in _parameters(step).items():
            parameter.set_data(Tensor(arrays.pop(name)))
        if reasons:  # out of the way, or the next save would make it the previous state
            with suppress(FileNotFoundError):  # another rank has done it
                os.replace(directory / STATE, directory / UNUSABLE_STATE)
        log.info("state read from %s", path)
        return progress
    if reasons:
        raise UserError(
            f"resume: no usable state ({'; '.join(reasons)}); a resumed run keeps its network and "
            "optimizer; others start a new run with model.weights=RUN/checkpoints/last.ckpt"
        )
    return None


def _parameters(step: TrainStep) -> dict[str, Parameter]:
    """All parameters that change from step to step, by name, including the loss scaler's."""
    scaler = vars(step.loss_scaler).items()
    return {parameter.name: parameter for parameter in step.get_parameters()} | {
        f"loss_scaler.{name}": value for name, value in scaler if isinstance(value, Parameter)
    }


def _read(
    path: Path, expected: dict[str, Parameter]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Progress and arrays of a state file; UserError if it is damaged or of something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            progress = json.loads(archive.read(_PROGRESS))
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)))
                for name in archive.namelist()
                if name != _PROGRESS
            }
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is truncated or no training state ({error})") from error
    for name in sorted(expected.keys() ^ arrays.keys()):
        where = "lacks" if name in expected else "has"
        raise UserError(f"{path} is of another network or optimizer (it {where} {name})")
    for name, array in arrays.items():
        shape = expected[name].shape
        if array.shape != shape:
            raise UserError(f"{path} is of another network ({name} is {array.shape}, not {shape})")
    return progress, arrays


def _plain(value: Any) -> Any:
    return value.item()  # NumPy scalars
