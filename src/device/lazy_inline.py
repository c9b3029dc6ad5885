"""Equal blocks of a network, marked so that MindSpore parses their code only once."""

import inspect
from collections import Counter

from mindspore import nn

from src.device.cell_description import Description


def parse_equal_blocks_once(network: nn.Cell) -> None:
    """Marks a network's equal blocks as MindSpore's `lazy_inline(policy="front")` would.

    The decorator compares constructor arguments. Here two blocks are equal if their attributes,
    including those of all nested cells, and the shapes and types of their parameters are equal.
    The mark is an attribute of the cell, which MindSpore's `get_object_key` reads. The front end
    then parses only the first of the equal blocks, calls it with the parameters of each, and
    inlines the calls itself: the device gets the same graph as without the mark. The decorator's
    other policy keeps the calls until kernels are selected, which the CPU backend refuses.

    Without effect in PyNative mode.

    Args:
        network: Changes to its cells or their precision must be made before.
    """
    descriptions = {id(cell): _description(cell) for _, cell in network.cells_and_names()}
    counts = Counter(descriptions.values())

    def mark(cell: nn.Cell) -> None:
        description = descriptions.get(id(cell))  # none of an empty `nn.SequentialCell`
        if description is not None and counts[description] > 1:
            cell.cell_init_args = f"lazy_inline_{description}"
            cell.no_inline = False  # the policy "front"
        else:  # equal cells inside an equal block gain nothing more
            for child in cell.cells():
                mark(child)

    mark(network)


def _description(cell: nn.Cell) -> str | None:
    """A hash that equal blocks share; None for a cell that is not a block.

    Not blocks are: MindSpore's own layers; cells without child cells or parameters, where nothing
    would be saved; and cells whose `construct` has defaults, `*args` or `**kwargs`, which
    MindSpore's calls leave out.
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
