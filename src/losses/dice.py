"""The soft Dice loss."""

import mindspore as ms
from mindspore import Tensor, ops

from src.losses.base import SegmentationLoss, one_hot, softmax_terms, targets


class Dice(SegmentationLoss):
    """Soft Dice loss: 1 - mean over classes of 2 · overlap / (probabilities + pixels).

    Milletari et al. 2016 without the squares, over the valid pixels of the whole batch. The mean
    is over the classes present in its labels, whose denominators cannot be 0. Parts of a batch are
    averaged by their valid pixels, which is not the Dice loss of the whole.

    Args:
        ignore_index: Label of the pixels that are left out.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = targets(labels, self.ignore_index)
        shifted, log_sum = softmax_terms(logits)
        weight = weight.expand_dims(1)
        probability = ops.exp(shifted - log_sum.expand_dims(1)) * weight
        pixels = one_hot(target, logits.shape[1]) * weight
        overlap = (probability * pixels).sum(axis=(0, 2, 3))
        pixels = pixels.sum(axis=(0, 2, 3))
        present = (pixels > 0).astype(ms.float32)
        size = probability.sum(axis=(0, 2, 3)) + pixels
        missed = present * (1 - 2 * overlap / self.divisor(size))
        loss = missed.sum() / self.divisor(present.sum())
        return loss * weight.sum(), weight.sum()
