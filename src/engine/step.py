"""One weight update: forward, backward, loss scaling, accumulation, clipping, optimiser."""

import mindspore as ms
from mindspore import Tensor, amp, nn, ops

from src.engine.averaging import WeightAverage

_add = ops.MultitypeFuncGraph("add")


@_add.register("Tensor", "Tensor")
def _add_tensors(left: Tensor, right: Tensor) -> Tensor:
    return left + right


_scale = ops.MultitypeFuncGraph("scale")


@_scale.register("Tensor", "Tensor")
def _scale_tensor(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factor.astype(gradient.dtype)


class TrainStep(nn.Cell):
    """Images N×3×H×W and labels N×H×W int32 → loss (scalar), updating the weights on the way.

    With `accumulate` = k the batch is worked off in k parts, so that it needs the memory of one;
    loss and gradients are those of the whole batch, averaged over its valid pixels. One step
    stays one weight update, in logs and schedules.

    Args:
        network: Images → logits N×C×H×W.
        loss: See `src.losses`; `parts` and `divisor` let a batch be worked off in parts.
        optimizer: A MindSpore optimizer over the network's trainable parameters.
        accumulate: Parts that a batch is worked off in.
        gradient_clip: Largest global norm of the gradients; None leaves them.
        loss_scaler: For mixed precision; a step whose gradients overflow is left out.
        average: Takes the new weights in after each update.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        optimizer: nn.Optimizer,
        accumulate: int = 1,
        gradient_clip: float | None = None,
        loss_scaler: amp.LossScaler | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.loss_scaler = loss_scaler or amp.StaticLossScaler(1)
        self.scaled = loss_scaler is not None
        self.average = average
        self.map = ops.HyperMap()
        self.gradients = ms.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one part, averaged and scaled, and the weight it is averaged by."""
        loss_sum, weight = self.loss.parts(self.network(images), labels)
        loss = loss_sum / self.loss.divisor(weight)
        if self.scaled:
            loss = loss * self.loss_scaler.scale_value
        return loss, weight

    def construct(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.accumulate == 1:
            (loss, weight), gradients = self.gradients(images, labels)
        else:
            size = images.shape[0] // self.accumulate
            (loss, weight), gradients = self.gradients(images[:size], labels[:size])
            # Parts are averaged one by one, as half precision wants it, and weighted when added
            loss = loss * self.loss.divisor(weight)
            gradients = self.map(ops.partial(_scale, self.loss.divisor(weight)), gradients)
            for i in range(1, self.accumulate):
                part = (images[i * size : (i + 1) * size], labels[i * size : (i + 1) * size])
                (part_loss, part_weight), part_gradients = self.gradients(*part)
                factor = self.loss.divisor(part_weight)
                loss = loss + part_loss * factor
                scaled = self.map(ops.partial(_scale, factor), part_gradients)
                gradients = self.map(_add, gradients, scaled)
                weight = weight + part_weight
            divisor = self.loss.divisor(weight)
            loss = loss / divisor
            gradients = self.map(ops.partial(_scale, 1 / divisor), gradients)
        if self.scaled:
            return self._update_if_finite(loss, gradients)
        return ops.depend(loss, self._update(gradients))

    def _update(self, gradients: tuple[Tensor, ...]) -> Tensor:
        if self.gradient_clip is not None:
            gradients = ops.clip_by_global_norm(gradients, self.gradient_clip)
        updated = self.optimizer(gradients)
        if self.average is not None:
            updated = ops.depend(updated, self.average())
        return updated

    def _update_if_finite(self, loss: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
        # Not by the scaler's own `unscale`: MindSpore compiles that once for all scalers of a
        # process, and in PyNative mode it may read the scale of an earlier one
        factor = 1 / self.loss_scaler.scale_value
        loss = loss * factor
        finite = amp.all_finite(gradients)
        if finite:
            unscaled = self.map(ops.partial(_scale, factor), gradients)
            loss = ops.depend(loss, self._update(unscaled))
        self.loss_scaler.adjust(finite)
        return loss
