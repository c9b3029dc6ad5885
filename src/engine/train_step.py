"""One weight update: forward, backward, loss scaling, accumulation, clipping, optimiser."""

import mindspore as ms
from mindspore import ParameterTuple, Tensor, amp, nn, ops

from src.device.cpu_convolutions import use_cpu_convolutions
from src.engine.ema import ExponentialMovingAverage

_RUNNING = ("moving_mean", "moving_variance")

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
    stays one weight update, in logs and schedules. The same holds for several processes, each with
    its part of the batch; the running statistics of batch normalisation, which each process takes
    over its part, are averaged.

    Args:
        network: Images → logits N×C×H×W. Its convolutions are changed (`use_cpu_convolutions`).
        loss: See `src.losses`; `parts` and `divisor` let a batch be worked off in parts.
        optimizer: A MindSpore optimizer over the network's trainable parameters.
        accumulate: Parts that a batch is worked off in.
        gradient_clip: Largest global norm of the gradients; None leaves them.
        loss_scaler: For mixed precision; a step whose gradients overflow is left out.
        ema: Takes the new weights in after each update.
        world_size: Processes that work on the step together.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        optimizer: nn.Optimizer,
        accumulate: int = 1,
        gradient_clip: float | None = None,
        loss_scaler: amp.LossScaler | None = None,
        ema: ExponentialMovingAverage | None = None,
        world_size: int = 1,
    ) -> None:
        super().__init__(auto_prefix=False)
        use_cpu_convolutions(network)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.loss_scaler = loss_scaler or amp.StaticLossScaler(1)
        self.scaled = loss_scaler is not None
        self.ema = ema
        self.world_size = world_size
        self.all_reduce = ops.AllReduce() if world_size > 1 else None
        running = [p for p in network.get_parameters() if p.name.endswith(_RUNNING)]
        self.statistics = ParameterTuple(running if world_size > 1 else [])
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
        size = images.shape[0] // self.accumulate
        if self.accumulate == 1:
            (loss, weight), gradients = self.gradients(images, labels)
        else:
            (loss, weight), gradients = self.gradients(images[:size], labels[:size])
        if self.accumulate > 1 or self.world_size > 1:
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
            if self.world_size > 1:
                weight = self.all_reduce(weight)
            divisor = self.loss.divisor(weight)
            loss = loss / divisor
            gradients = self.map(ops.partial(_scale, 1 / divisor), gradients)
            if self.world_size > 1:
                loss, gradients = self._sum_over_processes(loss, gradients)
        if self.scaled:
            return self._update_if_finite(loss, gradients)
        return ops.depend(loss, self._update(gradients))

    def _sum_over_processes(
        self, loss: Tensor, gradients: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sums loss and gradients, averages the running statistics.

        Each message waits for the one before: all processes must send them in the same order. The
        last layers' gradients come first, as backward finds them.
        """
        loss = self.all_reduce(loss)
        sent, summed = loss, ()
        for gradient in gradients[::-1]:
            sent = self.all_reduce(ops.depend(gradient, sent))
            summed = (sent, *summed)
        if len(self.statistics) > 0:
            flat = ops.concat([statistic.reshape(-1) for statistic in self.statistics])
            flat = self.all_reduce(ops.depend(flat, sent)) / self.world_size
            start = 0
            for statistic in self.statistics:
                end = start + statistic.size
                ops.assign(statistic, flat[start:end].reshape(statistic.shape))
                start = end
        return loss, summed

    def _update(self, gradients: tuple[Tensor, ...]) -> Tensor:
        if self.gradient_clip is not None:
            gradients = ops.clip_by_global_norm(gradients, self.gradient_clip)
        updated = self.optimizer(gradients)
        if self.ema is not None:
            updated = ops.depend(updated, self.ema())
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
