"""Checkpoint files: weights for everybody, training state for resuming."""

from pathlib import Path

import mindspore as ms
from mindspore import nn

from src.utils.files import write_aside


def save_weights(network: nn.Cell, path: Path) -> None:
    """Writes the network's parameters, by their names in the network, to a `.ckpt` file."""
    write_aside(path, lambda aside: ms.save_checkpoint(network, str(aside)))


def save_training_state(step: nn.Cell, path: Path) -> None:
    """Writes what the optimizer and the loss scaler keep between steps."""
    weights = {id(parameter) for parameter in step.network.get_parameters()}
    content = [
        {"name": parameter.name, "data": parameter}
        for parameter in step.get_parameters()
        if id(parameter) not in weights
    ]
    write_aside(path, lambda aside: ms.save_checkpoint(content, str(aside)))
