"""Softmax cross-entropy."""

from collections.abc import Sequence

from mindspore import Tensor, ops

from src.losses.base import (
    SegmentationLoss,
    check_classes,
    check_range,
    class_factors,
    is_sum,
    softmax_terms,
    targets,
)


class CrossEntropy(SegmentationLoss):
    """Softmax cross-entropy over the valid pixels of the batch.

    Class weights and label smoothing are PyTorch's: the mean is the weighted sum of the pixels'
    losses by the sum of their weights; smoothing spreads a share of the target evenly over all
    classes (Szegedy et al. 2016, section 7).

    Args:
        ignore_index: Label of the pixels that are left out.
        reduction: "mean", or "sum" as in the original FCN, with rates some 1e5 times smaller.
        class_weights: C factors; None weighs all classes alike.
        label_smoothing: Share of the target that is spread, 0..1.
        one_hot: See `SegmentationLoss`.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        reduction: str = "mean",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        one_hot: bool = False,
    ) -> None:
        super().__init__(one_hot)
        check_range("label_smoothing", label_smoothing, 0, 1)
        self.ignore_index = ignore_index
        self.summed = is_sum(reduction)
        self.class_weights = class_factors("class_weights", class_weights)
        self.label_smoothing = label_smoothing

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = targets(labels, self.ignore_index)
        shifted, log_sum = softmax_terms(logits)
        loss = log_sum - self.at_target(shifted, target)
        if self.class_weights is not None:
            check_classes(self.class_weights, logits)
            pixel_weight = weight * ops.gather(self.class_weights, target, 0)
        else:
            pixel_weight = weight
        loss_sum = (loss * pixel_weight).sum()
        if self.label_smoothing > 0:
            if self.class_weights is not None:
                factors = self.class_weights.reshape((1, -1, 1, 1))
                spread = log_sum * factors.mean() - (shifted * factors).mean(axis=1)
            else:
                spread = log_sum - shifted.mean(axis=1)
            loss_sum += self.label_smoothing * ((spread * weight).sum() - loss_sum)
        weight_sum = pixel_weight.sum()
        return loss_sum, ops.zeros_like(weight_sum) if self.summed else weight_sum
