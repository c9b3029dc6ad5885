"""Data sinking: several steps in one call, fed by the device's own queue."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import mindspore as ms


def sink_size(steps_per_epoch: int, at_most: int) -> int:
    """Steps of a sink, a divisor of the epoch: the largest up to `at_most`.

    Where that is 1, the smallest above it: MindSpore takes sinks of one step for data of changing
    shape, and asks for the shape before each.
    """
    divisors = [size for size in range(2, steps_per_epoch + 1) if steps_per_epoch % size == 0]
    return max((size for size in divisors if size <= at_most), default=min(divisors, default=1))


class SinkCallbacks(ms.train.Callback):
    """Calls callbacks at the epochs of a fit, where MindSpore treats each sink as an epoch.

    Step callbacks are called once a sink.

    Args:
        callbacks: Called in this order.
        steps_per_epoch: A multiple of the steps of a sink.
    """

    def __init__(self, callbacks: Sequence[ms.train.Callback], steps_per_epoch: int) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._steps_per_epoch = steps_per_epoch
        self._entered = ExitStack()

    def __enter__(self) -> "SinkCallbacks":
        for callback in self._callbacks:
            self._entered.enter_context(callback)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def on_train_begin(self, run_context: ms.train.RunContext) -> None:
        run_context.original_args().batch_num = self._steps_per_epoch
        for callback in self._callbacks:
            callback.on_train_begin(run_context)

    def on_train_epoch_begin(self, run_context: ms.train.RunContext) -> None:
        params = run_context.original_args()
        params.cur_epoch_num = params.cur_step_num // self._steps_per_epoch + 1
        if params.cur_step_num % self._steps_per_epoch == 0:
            for callback in self._callbacks:
                callback.on_train_epoch_begin(run_context)

    def on_train_step_begin(self, run_context: ms.train.RunContext) -> None:
        for callback in self._callbacks:
            callback.on_train_step_begin(run_context)

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        for callback in self._callbacks:
            callback.on_train_step_end(run_context)

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        if run_context.original_args().cur_step_num % self._steps_per_epoch == 0:
            for callback in self._callbacks:
                callback.on_train_epoch_end(run_context)

    def on_train_end(self, run_context: ms.train.RunContext) -> None:
        for callback in self._callbacks:
            callback.on_train_end(run_context)


def close_queue(batches: ms.dataset.Dataset) -> None:
    """Ends the threads that feed the device; MindSpore does so at the end of a fit that is whole.

    Without it the process may not come to its end after an error.
    """
    queue = getattr(batches, "__transfer_dataset__", None)
    if queue is not None:
        queue.stop_send()
        queue.release()
