"""One weight update: forward, backward, loss scaling, accumulation, clipping, optimiser."""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, amp, nn, ops

from src.device.compile_cache import compile_cache
from src.device.cpu_convolutions import use_cpu_convolutions
from src.device.lazy_inline import parse_equal_blocks_once
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


def _messages(sizes: Sequence[int], most: float) -> list[tuple[int, int]]:
    """First and end of runs of neighbours, the last run first: as long as `most` bytes allow."""
    messages = [(len(sizes) - 1, len(sizes))]
    for index in range(len(sizes) - 2, -1, -1):
        end = messages[-1][1]
        if sum(sizes[index:end]) <= most:
            messages[-1] = (index, end)
        else:
            messages.append((index, index + 1))
    return messages


def _split(flat: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The parts of a concatenation, in the shapes of what was concatenated."""
    start = 0
    parts: tuple[Tensor, ...] = ()
    for tensor in like:
        parts = (*parts, flat[start : start + tensor.size].reshape(tensor.shape))
        start += tensor.size
    return parts


class StepLog(nn.Cell):
    """Sums over the steps of a fit, kept on the device: it need not be waited for at each step."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.loss_sum = _zero("loss_sum", ms.float32)
        self.updates = _zero("updates", ms.int32)  # `loss_sum` is over them
        self.skipped_steps = _zero("skipped_steps", ms.int32)
        self.skipped_in_a_row = _zero("skipped_in_a_row", ms.int32)

    def construct(self, loss: Tensor, updated: Tensor) -> None:
        """Takes a step in: its loss, and whether it has updated the weights (a bool)."""
        update = updated.astype(ms.int32)
        ops.assign_add(self.loss_sum, ops.select(updated, loss, ops.zeros_like(loss)))
        ops.assign_add(self.updates, update)
        ops.assign_add(self.skipped_steps, 1 - update)
        ops.assign(self.skipped_in_a_row, (self.skipped_in_a_row + 1) * (1 - update))

    def take_mean_loss(self) -> float:
        """Mean loss of the updates since the last call; NaN if there were none."""
        updates = int(self.updates.asnumpy())
        mean = float(self.loss_sum.asnumpy()) / updates if updates else math.nan
        for parameter in (self.loss_sum, self.updates):
            ops.assign(parameter, ops.zeros_like(parameter))
        return mean


def _zero(name: str, dtype: ms.Type) -> Parameter:
    return Parameter(Tensor(0, dtype), name=f"step_log.{name}", requires_grad=False)


class TrainStep(nn.Cell):
    """Images N×3×H×W and labels N×H×W int32 → loss (scalar), updating the weights on the way.

    With `accumulate` = k the batch is worked off in k parts, so that it needs the memory of one;
    loss and gradients are those of the whole batch, averaged over its valid pixels. One step
    stays one weight update, in logs and schedules. The same holds for several processes, each with
    its part of the batch; the running statistics of batch normalisation, which each process takes
    over its part, are averaged.

    Args:
        network: Images → logits N×C×H×W.
        loss: See `src.losses`; `parts` and `divisor` let a batch be worked off in parts.
        optimizer: A MindSpore optimizer over the network's trainable parameters.
        accumulate: Parts that a batch is worked off in.
        gradient_clip: Largest global norm of the gradients; None leaves them.
        loss_scaler: For mixed precision; a step whose gradients overflow is left out.
        ema: Takes the new weights in after each update.
        world_size: Processes that work on the step together.
        all_reduce_megabytes: Gradients are summed over the processes in messages of up to this
            size, each gathered from as many of them as fit; None sends one message a parameter.
        fast_convolutions: Changes the network's convolutions on the CPU (`use_cpu_convolutions`).
        cache_graph: Takes the compiled graph from `compile_cache`, in one process.
        lazy_inline: The network's equal blocks are parsed once (`parse_equal_blocks_once`).
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
        all_reduce_megabytes: float | None = None,
        fast_convolutions: bool = True,
        cache_graph: bool = False,
        lazy_inline: bool = False,
    ) -> None:
        super().__init__(auto_prefix=False)
        if fast_convolutions:
            use_cpu_convolutions(network)
        if lazy_inline:
            parse_equal_blocks_once(network)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.loss_scaler = loss_scaler or amp.StaticLossScaler(1)
        self.scaled = loss_scaler is not None
        self.ema = ema
        self.log = StepLog()
        self.world_size = world_size
        self.all_reduce = ops.AllReduce() if world_size > 1 else None
        sizes = [parameter.nbytes for parameter in optimizer.parameters]
        self.messages = _messages(sizes, (all_reduce_megabytes or 0) * 2**20)
        running = [p for p in network.get_parameters() if p.name.endswith(_RUNNING)]
        self.statistics = ParameterTuple(running if world_size > 1 else [])
        self.map = ops.HyperMap()
        self.cache_graph = cache_graph and world_size == 1
        self.gradients = ms.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)

    def compile(self, images: Tensor, labels: Tensor) -> None:
        """Called by MindSpore before every step; compiles at the first of a shape."""
        cached = self.cache_graph and not self.compile_cache
        with compile_cache(self, images, labels) if cached else nullcontext():
            super().compile(images, labels)

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
        loss = ops.depend(loss, self._update(gradients))
        self.log(loss, Tensor(True))
        return loss

    def _sum_over_processes(
        self, loss: Tensor, gradients: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sums loss and gradients, averages the running statistics.

        Each message waits for the one before: all processes must send them in the same order. The
        last layers' gradients come first, as backward finds them.
        """
        loss = self.all_reduce(loss)
        sent = loss
        summed: tuple[Tensor, ...] = ()
        for first, end in self.messages:
            part = gradients[first:end]
            if len(part) == 1:
                sent = self.all_reduce(ops.depend(part[0], sent))
                summed = (sent, *summed)
            else:
                flat = ops.concat([gradient.reshape(-1) for gradient in part])
                sent = self.all_reduce(ops.depend(flat, sent))
                summed = (*_split(sent, part), *summed)
        if len(self.statistics) > 0:
            flat = ops.concat([statistic.reshape(-1) for statistic in self.statistics])
            flat = self.all_reduce(ops.depend(flat, sent)) / self.world_size
            means = _split(flat, self.statistics)
            for i in range(len(self.statistics)):
                ops.assign(self.statistics[i], means[i])
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
        finite = amp.all_finite(gradients).reshape(())
        if self.world_size > 1:  # some cards saturate, and only the one that did so knows
            finite = self.all_reduce(1 - finite.astype(ms.float32)) == 0
        if finite:
            unscaled = self.map(ops.partial(_scale, factor), gradients)
            loss = ops.depend(loss, self._update(unscaled))
        self.loss_scaler.adjust(finite)
        self.log(loss, finite)
        return loss
