"""Checks of what several processes compute together."""

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.check_device import training
from src.check_device.catalogue import elementwise, products
from src.check_device.check import Arrays, Check, NotSupported
from src.check_device.layers import gradients, normal
from src.device.process_group import this_process
from src.device.sync_batch_norm import synchronize_batch_norm
from src.models.freezing import freeze_norms

GROUPS = ("collectives",)


def checks(target: str) -> list[Check]:
    """The checks of several processes, in their order."""

    def check(name: str, run: Callable[[], Arrays], against: str, allowed: float) -> Check:
        return Check("collectives", name, run, None, against, allowed)

    return [
        check("all-reduce", all_reduce, "NumPy", elementwise(target)),
        check("all-gather", all_gather, "what was sent", 0.0),
        check("training step, shared", shared_step, "one process", products(target)),
        check("the same, one message", in_one_message, "one process", products(target)),
        check("synchronised batch norm", sync_batch_norm, "one process", elementwise(target)),
    ]


def all_reduce() -> Arrays:
    """Sums over the processes."""
    group = this_process()
    parts = np.stack([normal(rank, 1000) for rank in range(group.world_size)])
    return {"sums": ops.AllReduce()(Tensor(parts[group.rank])).asnumpy() - parts.sum(0)}


def all_gather() -> Arrays:
    """Values of unequal lengths that every process sends to all others."""
    group = this_process()
    gathered = group.gather(list(range(group.rank + 1)))
    right = [gathered[rank] == list(range(rank + 1)) for rank in range(group.world_size)]
    return {"gathered": 1.0 - np.array(right)}


def in_one_message() -> Arrays:
    """A shared training step that gathers all gradients before it sums them."""
    return shared_step(all_reduce_megabytes=100)


def shared_step(all_reduce_megabytes: float | None = None) -> Arrays:
    """A training step on a batch split over the processes: differences from a whole-batch step.

    Two images a process, with unequal numbers of valid pixels. Batch norm uses its running
    statistics, since each process would otherwise use those of its own part.
    """
    group = this_process()
    count = 2 * group.world_size
    images, labels = normal(0, count, 3, 64, 64), training.labels(1, count, 64, 64)
    labels[: count // 2, :32] = 255
    own = np.s_[2 * group.rank : 2 * group.rank + 2]
    shared = _changes(
        images[own],
        labels[own],
        world_size=group.world_size,
        all_reduce_megabytes=all_reduce_megabytes,
    )
    alone = _changes(images, labels)
    found = {name: (shared[name] - alone[name]) / np.abs(alone[name]).max() for name in alone}
    sums = group.gather([float(array.sum(dtype=np.float64)) for array in shared.values()])
    return {**found, "other weights than the main process": np.array(sums[group.rank]) - sums[0]}


def _changes(images: np.ndarray, labels: np.ndarray, **options: Any) -> Arrays:
    network = training.small_network()
    freeze_norms(network)
    before = training.weights(network)
    training.train_step(network, **options)(Tensor(images), Tensor(labels))
    changes = training.changes(before, network)
    return {name: array for name, array in changes.items() if array.any()}


def sync_batch_norm() -> Arrays:
    """Batch normalisation over the whole batch, forward and backward."""
    if ms.get_context("device_target") != "Ascend":
        raise NotSupported("MindSpore has it for Ascend alone")
    group = this_process()
    x, output_gradient = (normal(seed, 4 * group.world_size, 16, 9, 11) for seed in (0, 1))
    own = np.s_[4 * group.rank : 4 * group.rank + 4]
    shared = nn.SequentialCell([nn.BatchNorm2d(16)])
    synchronize_batch_norm(shared)
    alone = nn.SequentialCell([nn.BatchNorm2d(16)])
    names = ("output", "gradient of the input")
    found = gradients(shared.set_train(), x[own], output_gradient[own])
    right = gradients(alone.set_train(), x, output_gradient)
    return {name: found[name] - right[name][own] for name in names}
