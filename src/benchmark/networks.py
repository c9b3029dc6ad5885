"""This project's training step and inference on random tensors; the rates that bound them."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from omegaconf import DictConfig

from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.cli import build
from src.device.precision import set_precision
from src.engine.segmenter import Segmenter
from src.engine.train_step import TrainStep
from src.utils.normalization import IMAGENET_RGB

RATE = 0.01  # of a training step; its value costs nothing


def train_step(cfg: DictConfig, cache_graph: bool = False) -> Work:
    """Forward, backward and update of the configured network, in the configured mode."""
    build.setup(cfg)
    network = build.bare_network(cfg)
    set_precision(network, cfg.device.amp_level)
    loss, optimizer = build.loss(cfg), build.optimizer(cfg, network, RATE)
    step = TrainStep(network, loss, optimizer, cache_graph=cache_graph)
    step.set_train()
    return step_work(step, network, *random_batch(cfg))


def cached_train_step(cfg: DictConfig) -> Work:
    """The same, with the graph from the compile cache, or added to it."""
    return train_step(cfg, cache_graph=True)


def step_work(step: nn.Cell, network: nn.Cell, images: np.ndarray, labels: np.ndarray) -> Work:
    """Runs a step again and again on one batch."""
    batch = Tensor(images), Tensor(labels)

    def run() -> None:
        step(*batch).asnumpy()  # waits for the device

    return Work(run, len(images), {"parameters": parameter_count(network)}, _device_peak())


def inference(cfg: DictConfig, count: int | None = None) -> Work:
    """Images to class ids on the path of validation, evaluation and prediction."""
    build.setup(cfg)
    network = build.bare_network(cfg)
    network.set_train(False)
    set_precision(network, cfg.device.amp_level)
    segmenter = Segmenter(network, IMAGENET_RGB)
    images, _ = random_batch(cfg, count)

    def run() -> None:
        segmenter.class_ids(images)

    return Work(run, len(images), {"parameters": parameter_count(network)}, _device_peak())


def inference_batch1(cfg: DictConfig) -> Work:
    """The same for a single image."""
    return inference(cfg, count=1)


def sgemm(cfg: DictConfig, size: int = 4096) -> Work:
    """A product of square float32 matrices; on the CPU NumPy's too, and the faster one counts."""
    build.setup(cfg)
    left, right = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    ours, theirs = Tensor(left), Tensor(right)
    products = [lambda: ops.matmul(ours, theirs)[0, 0].asnumpy()]
    if cfg.device.target == "CPU":
        products.append(lambda: left @ right)

    def run() -> float:
        seconds = []
        for product in products:
            started = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    return Work(run, facts={"operations": 2 * size**3})


def copying(cfg: DictConfig, megabytes: int = 512) -> Work:
    """A copy of arrays larger than caches; on the CPU a part by each thread."""
    build.setup(cfg)
    source = np.ones(megabytes << 18, np.float32)
    facts = {"bytes": 2 * source.nbytes}  # read and written
    if cfg.device.target != "CPU":
        tensor, copy = Tensor(source), ops.Neg()
        return Work(lambda: copy(tensor)[0].asnumpy(), facts=facts)
    copied = np.ones_like(source)
    threads = cfg.device.threads or len(os.sched_getaffinity(0))
    parts = list(zip(np.array_split(copied, threads), np.array_split(source, threads), strict=True))
    pool = ThreadPoolExecutor(threads)

    def run() -> None:
        list(pool.map(lambda part: np.copyto(*part), parts))

    return Work(run, facts=facts)


def parameter_count(network: nn.Cell) -> int:
    """The number of trainable values."""
    return sum(parameter.size for parameter in network.trainable_params())


def _device_peak() -> Callable[[], float] | None:
    if ms.get_context("device_target") == "CPU":
        return None
    return lambda: ms.runtime.max_memory_allocated() / 1e6
