"""Parts of a network that training leaves as they are."""

import logging
from collections.abc import Sequence

from mindspore import nn

from src.utils.errors import UserError, nearest

log = logging.getLogger(__name__)

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def freeze(network: nn.Cell, parts: str | Sequence[str]) -> None:
    """Keeps parameters as they are, and the statistics of the batch norms among them.

    Args:
        network: Of any kind; to be called before its optimizer is made.
        parts: A cell or cells by their dotted names, as `backbone.conv1`; all in them is frozen.

    Raises:
        UserError: The network has no such part.
    """
    parts = [parts] if isinstance(parts, str) else parts
    names = [parameter.name for parameter in network.get_parameters()]
    for part in parts:
        if not any(_within(name, part) for name in names):
            known = sorted({".".join(name.split(".")[:2]) for name in names})
            hint = nearest(part, known) or f"; there are {', '.join(known)}"
            raise UserError(f"model.frozen={part}: the network has no such part{hint}")
    frozen = [p for p in network.get_parameters() if any(_within(p.name, part) for part in parts)]
    for parameter in frozen:
        parameter.requires_grad = False
    for name, cell in network.cells_and_names():
        if isinstance(cell, _NORMS) and any(_within(name, part) for part in parts):
            cell.use_batch_statistics = False
    if frozen:
        log.info("frozen: %d of %d parameters", len(frozen), len(names))


def freeze_norms(network: nn.Cell) -> None:
    """Keeps statistics, scale and shift of all batch norms: they act as fixed affine maps."""
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, _NORMS)]
    if not norms:
        log.warning("model.frozen_norm=true has no effect: the backbone has no batch norm")
    for cell in norms:
        cell.use_batch_statistics = False
        for parameter in cell.get_parameters():
            parameter.requires_grad = False


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
