"""The loss of a network with an auxiliary head."""

from mindspore import Tensor

from src.losses.base import SegmentationLoss


class WithAuxiliary(SegmentationLoss):
    """The loss of a pair of logits: a network's own plus `weight` times its auxiliary head's."""

    def __init__(self, loss: SegmentationLoss, weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight

    def parts(self, logits: tuple[Tensor, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        own, divided_by = self.loss.parts(logits[0], labels)
        auxiliary = self.loss(logits[1], labels) * self.divisor(divided_by)
        return own + self.weight * auxiliary, divided_by
