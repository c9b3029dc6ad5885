"""Batch normalisation over the whole batch of all processes."""

from mindspore import nn


def synchronize_batch_norm(network: nn.Cell) -> None:
    """Replaces each `nn.BatchNorm2d` by `nn.SyncBatchNorm`, which keeps its parameters' names.

    For Ascend: MindSpore has no such kernel for the CPU.
    """
    names = [(parameter, parameter.name) for parameter in network.get_parameters()]
    found = [
        (cell, name, child)
        for _, cell in network.cells_and_names()
        for name, child in cell.name_cells().items()
        if isinstance(child, nn.BatchNorm2d)
    ]
    for cell, name, child in found:
        norm = nn.SyncBatchNorm(
            child.num_features,
            child.eps,
            1 - child.momentum,  # the cell keeps the complement
            use_batch_statistics=child.use_batch_statistics,
        )
        for parameter in ("gamma", "beta", "moving_mean", "moving_variance"):
            setattr(norm, parameter, getattr(child, parameter))
        norm.set_train(child.training)
        if isinstance(cell, nn.SequentialCell):
            cell[list(cell.name_cells()).index(name)] = norm
        else:
            setattr(cell, name, norm)
    for parameter, name in names:  # MindSpore names anew what is set as an attribute
        parameter.name = name
