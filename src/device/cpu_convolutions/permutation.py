"""Permutation of a tensor's rows, for transforms over whole feature maps."""

from mindspore import Tensor, nn, ops


class PermuteRows(nn.Cell):
    """Transposes all axes of a tensor but the last: A×B×…×L in the order `axes`, as rows of L.

    Copying whole rows takes two thirds of Transpose's time on the CPU, and a seventh where sizes
    are known at run time only. Not meant to be differentiated: the gradient would add row by row.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.gather, self.range = ops.Gather(), ops.Range()

    def construct(self, x: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
        """The rows of `x`, seen as of the shape (*shape, L); a matrix of rows."""
        count = 1
        for size in shape:  # math.prod fails on sizes that are unknown before run time
            count = count * size
        order = self.range(0, count, 1).reshape(shape).transpose(axes).reshape(-1)
        return self.gather(x.reshape(count, -1), order, 0)
