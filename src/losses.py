"""Losses over the pixels of a batch: logits N×C×H×W, labels N×H×W of class ids.

All compute in float32, whatever the logits are. Shapes are static throughout: pixels to ignore are
weighted by zero, never cut out.
"""

from collections.abc import Mapping, Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.utils.errors import UserError


class SegmentationLoss(nn.Cell):
    """A loss that is a sum over pixels, divided by the sum of their weights.

    Subclasses give the two sums as `parts`, so that a batch can be worked off in parts, on one
    device or several, and still be averaged over the pixels of the whole: add up the sums, then

        loss = loss_sum / divisor(weight_sum)

    A weight of 0 means that nothing is divided: either no pixel is valid, and the loss is 0, or
    the loss is to be summed (`reduction="sum"`).
    """

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss summed over the pixels, and the weight it is to be divided by.

        Both are scalar float32; no gradient flows through the weight.
        """
        raise NotImplementedError

    def divisor(self, weight_sum: Tensor) -> Tensor:
        """The weight, or 1 where it is 0."""
        return ops.select(weight_sum > 0, weight_sum, ops.ones_like(weight_sum))

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss_sum, weight_sum = self.parts(logits, labels)
        return loss_sum / self.divisor(weight_sum)


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
    """

    def __init__(
        self,
        ignore_index: int = 255,
        reduction: str = "mean",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_range("label_smoothing", label_smoothing, 0, 1)
        self.ignore_index = ignore_index
        self.summed = _is_sum(reduction)
        self.class_weights = _class_factors("class_weights", class_weights)
        self.label_smoothing = label_smoothing

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = _targets(labels, self.ignore_index)
        shifted, log_sum = _softmax_terms(logits)
        loss = log_sum - _at(shifted, target)
        if self.class_weights is not None:
            _check_classes(self.class_weights, logits)
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


class Ohem(SegmentationLoss):
    """Cross-entropy of the hard pixels alone: online hard example mining.

    A pixel is kept if the network gives its class less than `thresh`; if fewer than `min_kept` of
    the valid pixels are, the least probable ones are kept up to that share. The loss is averaged
    over the kept pixels. Parts of a batch choose their pixels separately.

    Args:
        thresh: Probability of the right class below which a pixel is hard, 0..1.
        min_kept: Share of the valid pixels that is kept at least, 0..1.
        ignore_index: Label of the pixels that are left out.
    """

    def __init__(self, thresh: float = 0.7, min_kept: float = 0.2, ignore_index: int = 255) -> None:
        super().__init__()
        _check_range("thresh", thresh, 0, 1)
        _check_range("min_kept", min_kept, 0, 1)
        self.thresh = thresh
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = _targets(labels, self.ignore_index)
        shifted, log_sum = _softmax_terms(logits)
        loss = log_sum - _at(shifted, target)
        probability = ops.exp(-ops.stop_gradient(loss))
        # The cut is found by bisection: a sort of a batch's pixels takes longer on the CPU and, in
        # float32, loses precision on Ascend. 24 halvings reach float32's resolution at 1.
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


class Focal(SegmentationLoss):
    """Softmax focal loss: alpha · (1 - p)^gamma · cross-entropy, p the right class's probability.

    Lin et al. 2017, equation 5, over the valid pixels of the batch. With gamma 0 and alpha 1 it is
    the cross-entropy.

    Args:
        gamma: How much easy pixels are played down; 0 not at all.
        alpha: One factor, or C factors by class.
        ignore_index: Label of the pixels that are left out.
        reduction: "mean" over the valid pixels, or "sum".
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] = 1.0,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise UserError(f"gamma={gamma}: expected at least 0, as 2.0")
        self.gamma = gamma
        scalar = isinstance(alpha, int | float)
        self.alpha = _class_factors("alpha", [alpha] if scalar else alpha)
        self.by_class = not scalar
        self.ignore_index = ignore_index
        self.summed = _is_sum(reduction)

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = _targets(labels, self.ignore_index)
        shifted, log_sum = _softmax_terms(logits)
        loss = log_sum - _at(shifted, target)
        if self.by_class:
            _check_classes(self.alpha, logits)
            factor = ops.gather(self.alpha, target, 0)
        else:
            factor = self.alpha
        # Away from 0, where the power has no gradient for gamma below 1
        missing = ops.maximum(1 - ops.exp(-loss), 1e-6)
        loss_sum = (factor * missing**self.gamma * loss * weight).sum()
        weight_sum = weight.sum()
        return loss_sum, ops.zeros_like(weight_sum) if self.summed else weight_sum


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
        target, weight = _targets(labels, self.ignore_index)
        shifted, log_sum = _softmax_terms(logits)
        weight = weight.expand_dims(1)
        probability = ops.exp(shifted - log_sum.expand_dims(1)) * weight
        on, off = Tensor(1.0, ms.float32), Tensor(0.0, ms.float32)
        pixels = ops.one_hot(target, logits.shape[1], on, off, axis=1) * weight
        overlap = (probability * pixels).sum(axis=(0, 2, 3))
        pixels = pixels.sum(axis=(0, 2, 3))
        present = (pixels > 0).astype(ms.float32)
        size = probability.sum(axis=(0, 2, 3)) + pixels
        missed = present * (1 - 2 * overlap / self.divisor(size))
        loss = missed.sum() / self.divisor(present.sum())
        return loss * weight.sum(), weight.sum()


class WeightedSum(SegmentationLoss):
    """A sum of losses, each with its weight.

    Worked off in parts, the sum is averaged by the weights of the first loss: exact for it and for
    all that divide by the same, such as plain losses over valid pixels.

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


def _targets(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Class ids with 0 where ignored, int32, and the weights 1 and 0; both N×H×W."""
    labels = labels.astype(ms.int32)
    valid = labels != ignore_index
    return ops.select(valid, labels, ops.zeros_like(labels)), valid.astype(ms.float32)


def _softmax_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """z = logits minus their largest, N×C×H×W, and log Σ exp z, N×H×W.

    A third of the time of `ops.cross_entropy` on the CPU, forward and backward.
    """
    logits = logits.astype(ms.float32)
    shifted = logits - ops.stop_gradient(ops.amax(logits, 1, keepdims=True))
    return shifted, ops.log(ops.exp(shifted).sum(axis=1))


def _at(values: Tensor, target: Tensor) -> Tensor:
    """The value of each pixel's class: N×C×H×W, N×H×W -> N×H×W."""
    return ops.gather_elements(values, 1, target.expand_dims(1)).squeeze(1)


def _check_classes(factors: Tensor, logits: Tensor) -> None:
    if factors.shape[0] != logits.shape[1]:
        raise ValueError(
            f"{factors.shape[0]} factors for {logits.shape[1]} classes: the loss needs one a class"
        )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{name}={value}: expected {low}..{high}")


def _is_sum(reduction: str) -> bool:
    if reduction not in ("mean", "sum"):
        raise UserError(f"reduction={reduction}: expected mean or sum")
    return reduction == "sum"


def _class_factors(name: str, factors: Sequence[float] | None) -> Tensor | None:
    if factors is None:
        return None
    if not all(0 <= factor < float("inf") for factor in factors) or not any(factors):
        raise UserError(f"{name}={list(factors)}: expected numbers of at least 0, one above 0")
    return Tensor([float(factor) for factor in factors], ms.float32)
