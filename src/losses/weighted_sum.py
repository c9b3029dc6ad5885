"""Sums of losses."""

from collections.abc import Mapping

from mindspore import Tensor, nn

from src.losses.base import SegmentationLoss
from src.utils.errors import UserError


class WeightedSum(SegmentationLoss):
    """A sum of losses, each with its weight.

    Parts of a batch are averaged by the weights of the first loss: exact for it and for all losses
    with the same divisor, such as unweighted losses over valid pixels.

    Args:
        losses, weights: The losses by name, in order, and a factor for each.
    """

    def __init__(
        self, losses: Mapping[str, SegmentationLoss], weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        if not losses or set(losses) != set(weights):
            raise UserError(
                f"losses {sorted(losses)} beside weights {sorted(weights)}: expected a weight for "
                "every loss, under the same name"
            )
        self.losses = nn.CellList(list(losses.values()))
        self.weights = [float(weights[name]) for name in losses]

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        first_sum, first_weight = self.losses[0].parts(logits, labels)
        divisor = self.divisor(first_weight)
        loss_sum = self.weights[0] * first_sum
        for i in range(1, len(self.weights)):
            loss = self.losses[i](logits, labels)
            loss_sum += self.weights[i] * loss * divisor
        return loss_sum, first_weight
