"""Online hard example mining."""

import mindspore as ms
from mindspore import Tensor, ops

from src.losses.base import SegmentationLoss, check_range, softmax_terms, targets


class Ohem(SegmentationLoss):
    """Cross-entropy of the hard pixels alone: online hard example mining.

    A pixel is kept if the network gives its class less than `thresh`; if fewer than `min_kept` of
    the valid pixels are, the least probable ones are kept up to that share. The loss is averaged
    over the kept pixels. Parts of a batch choose their pixels separately.

    Args:
        thresh: Probability of the right class below which a pixel is hard, 0..1.
        min_kept: Share of the valid pixels that is kept at least, 0..1.
        ignore_index: Label of the pixels that are left out.
        one_hot: See `SegmentationLoss`.
    """

    def __init__(
        self,
        thresh: float = 0.7,
        min_kept: float = 0.2,
        ignore_index: int = 255,
        one_hot: bool = False,
    ) -> None:
        super().__init__(one_hot)
        check_range("thresh", thresh, 0, 1)
        check_range("min_kept", min_kept, 0, 1)
        self.thresh = thresh
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = targets(labels, self.ignore_index)
        shifted, log_sum = softmax_terms(logits)
        loss = log_sum - self.at_target(shifted, target)
        probability = ops.exp(-ops.stop_gradient(loss))
        # The threshold is found by bisection: sorting a batch's pixels takes longer on the CPU and,
        # in float32, loses precision on Ascend. 24 halvings reach float32's resolution at 1.
        wanted = self.min_kept * weight.sum()
        low = ops.ones_like(wanted) * self.thresh
        high = ops.ones_like(wanted) * 2  # a rounded probability may exceed 1
        for _ in range(24):
            middle = (low + high) / 2
            enough = ((probability <= middle).astype(ms.float32) * weight).sum() >= wanted
            low = ops.select(enough, low, middle)
            high = ops.select(enough, middle, high)
        kept = (probability <= high).astype(ms.float32) * weight
        return (loss * kept).sum(), kept.sum()
