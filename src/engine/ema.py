"""The exponential moving average of a network's weights."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from src.device.dropout import draw_counters


@contextmanager
def swapped_parameters(parameters: Sequence[Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Swaps other values into parameters temporarily."""
    # By `assign`: after `set_data`, PyNative mode goes on with the tensors it knew
    own = [parameter.value().copy() for parameter in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            ops.assign(parameter, value)
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            ops.assign(parameter, value)


class ExponentialMovingAverage(nn.Cell):
    """The exponential moving average (EMA) of a network's parameters, running statistics too.

    Called after each weight update, inside the step's graph:

        average = d · average + (1 - d) · weight,   d = min(decay, (1 + t) / (10 + t))

    with t the number of updates before: the rise of d, TensorFlow's, soon forgets a random start.

    Args:
        network: Its parameters now are where the average starts.
        decay: d after the rise, 0 to below 1: the average reaches back some 1 / (1 - d) updates.
    """

    def __init__(self, network: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        counters = draw_counters(network)
        weights = [p for p in network.get_parameters() if p.name not in counters]
        self.weights = ms.ParameterTuple(weights)
        self.averages = ms.ParameterTuple(
            Parameter(Tensor(p.asnumpy()), name=f"ema.{p.name}", requires_grad=False)
            for p in weights
        )
        self.updates = Parameter(Tensor(0, ms.int32), name="ema.updates", requires_grad=False)

    def construct(self) -> Tensor:
        """Updates the averages; returns the number of updates."""
        before = self.updates.astype(ms.float32)
        share = 1 - ops.minimum((1 + before) / (10 + before), self.decay)
        for i in range(len(self.weights)):
            average, weight = self.averages[i], self.weights[i]
            ops.assign_add(average, (weight - average) * share)
        return ops.assign_add(self.updates, 1)

    def in_place(self) -> AbstractContextManager[None]:
        """Swaps the averages into the network temporarily."""
        return swapped_parameters(self.weights, [average.value() for average in self.averages])
