"""The soft Dice loss."""

from src.losses.tversky import Tversky


class Dice(Tversky):
    """Soft Dice loss: 1 - mean over classes of 2 · overlap / (probabilities + pixels).

    Milletari et al. 2016 without the squares, over the valid pixels of the whole batch. The mean
    is over the classes present in its labels, whose denominators cannot be 0. Parts of a batch are
    averaged by their valid pixels, which is not the Dice loss of the whole.

    Args:
        ignore_index: Label of the pixels that are left out.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__(alpha=0.5, beta=0.5, ignore_index=ignore_index)
