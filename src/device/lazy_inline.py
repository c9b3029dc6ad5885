"""Equal blocks of a network, which MindSpore then parses once for all of them."""

import inspect
from collections import Counter

from mindspore import nn

from src.device.cell_description import Description


def parse_equal_blocks_once(network: nn.Cell) -> None:
    """Marks a network's equal blocks as MindSpore's `lazy_inline(policy="front")` would.

    That decorator goes by the arguments of a constructor; here blocks are equal whose attributes
    are, down to those of all cells within, and whose parameters are of the same shapes and types.
    The mark is an attribute of the cell, which MindSpore's `get_object_key` reads. Its front end
    then parses the code of the first such block alone, calls it with the parameters of each, and
    expands the calls itself: what the device is given is the graph that it would be anyway. The
    decorator's other policy keeps the calls until kernels are chosen, which the CPU refuses.

    Without effect in PyNative mode.

    Args:
        network: Ready to be compiled: whatever changes its cells or their precision comes before.
    """
    descriptions = {id(cell): _description(cell) for _, cell in network.cells_and_names()}
    counts = Counter(descriptions.values())

    def mark(cell: nn.Cell) -> None:
        description = descriptions.get(id(cell))  # none of an empty `nn.SequentialCell`
        if description is not None and counts[description] > 1:
            cell.cell_init_args = f"lazy_inline_{description}"
            cell.no_inline = False  # the policy "front"
        else:  # within an equal block there is nothing more to be gained
            for child in cell.cells():
                mark(child)

    mark(network)


def _description(cell: nn.Cell) -> str | None:
    """What a block is told from others by; None of a cell that is no block.

    Layers of MindSpore's own are none, nor are cells without cells or parameters, as they hold
    nothing that would be worth it, nor those whose arguments have defaults or are not named:
    MindSpore's calls leave them out.
    """
    arguments = inspect.signature(cell.construct).parameters.values()
    if (
        type(cell).__module__.partition(".")[0] == "mindspore"
        or not cell.name_cells()
        or not any(True for _ in cell.get_parameters())
        or any(a.default is not a.empty or a.kind is not a.POSITIONAL_OR_KEYWORD for a in arguments)
    ):
        return None
    described = Description(parameter_names=False)
    described.add(cell)
    return described.hash.hexdigest()[:32]
