"""The Tversky loss."""

import mindspore as ms
from mindspore import Tensor, ops

from src.losses.base import SegmentationLoss, one_hot, probabilities, targets
from src.utils.errors import UserError


class Tversky(SegmentationLoss):
    """Tversky loss: 1 - mean over classes of TP / (TP + alpha · FP + beta · FN).

    Salehi, Erdogmus, Gholipour 2017, with probabilities for the predictions: TP is a class's
    probability summed over its own pixels, FP over the others, FN what is missing from 1 on its
    own. Over the valid pixels of the whole batch; the mean is over the classes present in its
    labels. With alpha = beta = 0.5 it is the Dice loss. Parts of a batch are averaged by their
    valid pixels, which is not the Tversky loss of the whole.

    Args:
        alpha: Weight of false positives; Abraham and Khan call it beta.
        beta: Weight of false negatives; above alpha it favours recall.
        gamma: Above 1 the focal Tversky loss (Abraham and Khan 2019), the mean over classes of
            (1 - index)^(1 / gamma): classes that overlap well already count for more.
        ignore_index: Label of the pixels that are left out.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if not (alpha >= 0 and beta >= 0 and 0 < alpha + beta < float("inf")):
            raise UserError(
                f"alpha={alpha} beta={beta}: expected numbers of at least 0, one above 0, as "
                "0.3 and 0.7"
            )
        if not 1 <= gamma < float("inf"):
            raise UserError(
                f"gamma={gamma}: expected at least 1; the exponent is 1 / gamma, 0.75 for 1.333"
            )
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.ignore_index = ignore_index

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = targets(labels, self.ignore_index)
        weight = weight.expand_dims(1)
        probability = probabilities(logits) * weight
        pixels = one_hot(target, logits.shape[1]) * weight
        overlap = (probability * pixels).sum(axis=(0, 2, 3))
        predicted = probability.sum(axis=(0, 2, 3))
        pixels = pixels.sum(axis=(0, 2, 3))
        # TP + alpha · (predicted - TP) + beta · (pixels - TP), which in this order rounds as Dice
        shared = (1 - self.alpha - self.beta) * overlap
        size = shared + self.alpha * predicted + self.beta * pixels
        present = (pixels > 0).astype(ms.float32)
        missed = 1 - overlap / self.divisor(size)
        if self.gamma != 1:
            # Away from 0, where the power has no gradient
            missed = ops.maximum(missed, 1e-6) ** (1 / self.gamma)
        loss = (present * missed).sum() / self.divisor(present.sum())
        return loss * weight.sum(), weight.sum()
