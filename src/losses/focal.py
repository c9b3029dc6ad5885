"""The focal loss."""

from collections.abc import Sequence

from mindspore import Tensor, ops

from src.losses.base import (
    SegmentationLoss,
    check_classes,
    class_factors,
    is_sum,
    softmax_terms,
    targets,
)
from src.utils.errors import UserError


class Focal(SegmentationLoss):
    """Softmax focal loss: alpha · (1 - p)^gamma · cross-entropy, p the right class's probability.

    Lin et al. 2017, equation 5, over the valid pixels of the batch. With gamma 0 and alpha 1 it is
    the cross-entropy.

    Args:
        gamma: How strongly easy pixels are down-weighted; 0 not at all.
        alpha: One factor, or C factors by class.
        ignore_index: Label of the pixels that are left out.
        reduction: "mean" over the valid pixels, or "sum".
        one_hot: See `SegmentationLoss`.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] = 1.0,
        ignore_index: int = 255,
        reduction: str = "mean",
        one_hot: bool = False,
    ) -> None:
        super().__init__(one_hot)
        if gamma < 0:
            raise UserError(f"gamma={gamma}: expected at least 0, as 2.0")
        self.gamma = gamma
        factors = [alpha] if isinstance(alpha, int | float) else alpha
        self.alpha = class_factors("alpha", factors)
        self.by_class = factors is alpha
        self.ignore_index = ignore_index
        self.summed = is_sum(reduction)

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = targets(labels, self.ignore_index)
        shifted, log_sum = softmax_terms(logits)
        loss = log_sum - self.at_target(shifted, target)
        if self.by_class:
            check_classes(self.alpha, logits)
            factor = ops.gather(self.alpha, target, 0)
        else:
            factor = self.alpha
        # Away from 0, where the power has no gradient for gamma below 1
        missing = ops.maximum(1 - ops.exp(-loss), 1e-6)
        loss_sum = (factor * missing**self.gamma * loss * weight).sum()
        weight_sum = weight.sum()
        return loss_sum, ops.zeros_like(weight_sum) if self.summed else weight_sum
