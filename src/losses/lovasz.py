"""The Lovász-softmax loss."""

import mindspore as ms
from mindspore import Tensor, ops

from src.losses.base import SegmentationLoss, one_hot, probabilities, targets

_STEPS = 2.0**24  # of an error from 0 to 1, as many as float32 has below 1


class Lovasz(SegmentationLoss):
    """Lovász-softmax loss: the mean over classes of a continuous 1 - IoU.

    Berman, Rannen Triki, Blaschko 2018. A pixel's error for a class is 1 - p within the class and p
    elsewhere (equation 11). The errors are sorted in descending order, and each is weighted by the
    increase of 1 - IoU when its pixel is also predicted wrongly, after those before it (equations 8
    and 9). If all errors are 0 or 1, the sum is the 1 - IoU of the prediction.

    Over the valid pixels of the whole batch; the mean is over the classes present in its labels.
    Parts of a batch are averaged by their valid pixels, which is not the loss of the whole. The
    sort takes memory and time for each class and pixel.

    Args:
        ignore_index: Label of the pixels that are left out.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = targets(labels, self.ignore_index)
        weight = weight.expand_dims(1)
        within = one_hot(target, logits.shape[1])
        errors = within + probabilities(logits) * (1 - 2 * within)
        within = within * weight
        gains = self.jaccard_gains(ops.stop_gradient(errors), within, weight)
        present = (within.sum(axis=(0, 2, 3)) > 0).astype(ms.float32)
        by_class = (errors * gains).sum(axis=(0, 2, 3))
        loss = (present * by_class).sum() / self.divisor(present.sum())
        return loss * weight.sum(), weight.sum()

    def jaccard_gains(self, errors: Tensor, within: Tensor, weight: Tensor) -> Tensor:
        """The weight of each error, the gradient of the loss of its class (algorithm 1).

        Args:
            errors: N×C×H×W, 0..1.
            within: 1 in the valid pixels of a class, N×C×H×W.
            weight: 1 where valid, N×1×H×W.

        Returns:
            N×C×H×W, 0 where not valid.
        """
        # As integers: MindSpore's documents warn that sorting float32 may lose accuracy. Void last
        keys = (errors * weight + weight - 1) * _STEPS
        order = ops.sort(_rows(keys).astype(ms.int32), axis=1, descending=True)[1]
        own = ops.gather_elements(_rows(within), 1, order)
        count = ops.arange(1, own.shape[1] + 1).astype(ms.float32)
        others = (count <= weight.sum()).astype(ms.float32) - own
        total = own.sum(axis=1, keepdims=True)
        reached = ops.cumsum(own, 1)
        # Not as differences of successive IoUs, which nearly cancel: float32 would leave two digits
        intersection = total - reached
        union = total + count - reached
        gains = own / union + others * intersection / self.divisor(union * (union - 1))
        # Back in the pixels' order, so that the gradient of the errors is a plain product
        gains = ops.scatter(ops.zeros_like(gains), 1, order, gains)
        batch, classes, height, width = errors.shape
        return gains.reshape((classes, batch, height, width)).transpose((1, 0, 2, 3))


def _rows(values: Tensor) -> Tensor:
    """The values of each class in a row: N×C×H×W -> C×(N·H·W)."""
    return values.transpose((1, 0, 2, 3)).reshape((values.shape[1], -1))
