"""Losses over the pixels of a batch: logits N×C×H×W of any float type, labels N×H×W of any integer type.

All compute in float32. Shapes are static throughout: ignored pixels are weighted by zero, never cut out.
"""

from collections.abc import Mapping, Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.utils.errors import UserError


class SegmentationLoss(nn.Cell):
    """A loss that is a sum over pixels divided by the sum of their weights.

    Subclasses give the two sums (`parts`), so that a batch can be worked off in parts, on one device or on several,
    and still be averaged over the pixels of the whole: add up the sums of the parts, then

        loss = loss_sum / divisor(weight_sum)

    A weight of 0 means that nothing is divided: either no pixel is valid, and the loss is 0, or the loss is to be
    summed (`reduction="sum"`).
    """

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the loss over the pixels and the weight it is to be divided by, both scalar float32.

        No gradient flows through the weight.
        """
        raise NotImplementedError

    def divisor(self, weight_sum: Tensor) -> Tensor:
        """The weight, or 1 where it is 0."""
        return ops.select(weight_sum > 0, weight_sum, ops.ones_like(weight_sum))

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss_sum, weight_sum = self.parts(logits, labels)
        return loss_sum / self.divisor(weight_sum)


class CrossEntropy(SegmentationLoss):
    """Softmax cross-entropy, averaged over the valid pixels of the batch.

    With class weights the average is weighted too: the sum of weight × loss by the sum of the weights, as PyTorch
    has it. Label smoothing mixes the target with the uniform distribution (Szegedy et al. 2016, section 7).

    Args:
        ignore_index: Label of the pixels that are left out.
        reduction: "mean", or "sum" for the original FCN recipe, whose learning rates are some 1e5 times smaller.
        class_weights: C factors above or equal to 0; None weighs all classes alike.
        label_smoothing: Share of the target that is spread over all classes, 0..1.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        reduction: str = "mean",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"label_smoothing={label_smoothing}: expected 0..1, as 0.1")
        self.ignore_index = ignore_index
        self.averaged = _is_mean(reduction)
        self.class_weights = _factors("class_weights", class_weights)
        self.label_smoothing = label_smoothing

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = _targets(labels, self.ignore_index)
        shifted, log_sum = _shifted(logits)
        loss = log_sum - _at(shifted, target)  # N×H×W
        if self.class_weights is None:
            if self.label_smoothing > 0:
                uniform = log_sum - shifted.mean(axis=1)
                loss = loss + self.label_smoothing * (uniform - loss)
            loss_sum = (loss * weight).sum()
        else:
            factors = _per_class(self.class_weights, logits)
            loss = loss * factors[target]


...
