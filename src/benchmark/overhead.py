"""What `Trainer.fit` with all default callbacks costs beside a bare `Model.train`."""

import functools
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import nn
from omegaconf import DictConfig

from src.benchmark.networks import RATE
from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.cli import build
from src.cli.command import compose_config
from src.data.datamodule import EvalSample
from src.engine.evaluator import Evaluator
from src.engine.segmenter import Segmenter
from src.engine.train_step import TrainStep
from src.metrics import ConfusionMatrix
from src.utils.normalization import IMAGENET_RGB

STEPS, VALIDATED = 60, 4
# Steps of about a tenth of a second on a CPU, short enough for the overhead to show
SETTING = [
    "model/backbone=compact",
    "dataset.batch_size=4",
    "dataset.crop_size=[96,96]",
    "trainer.max_epochs=1",
]


class _Clock:
    """Adds up the seconds spent in functions; nested calls count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            self._depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - started

        return timed


class _Stopwatch(ms.train.Callback):
    """Times the steps of an epoch, except the first, which compiles.

    Args:
        step: The clock around the network, its gradient and the optimizer.
    """

    def __init__(self, step: "_Clock") -> None:
        super().__init__()
        self._step = step
        self._ends: list[tuple[float, float]] = []

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        self._ends.append((time.perf_counter(), self._step.seconds))

    @property
    def seconds(self) -> tuple[float, float]:
        """A mean step, and the part of it that is spent in the step itself."""
        first, last = self._ends[0], self._ends[-1]
        steps = len(self._ends) - 1
        return (last[0] - first[0]) / steps, (last[1] - first[1]) / steps


class _Fit:
    """A small network on random images, made anew for each fit."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = compose_config("train", SETTING)
        self.cfg.device = cfg.device
        build.setup(self.cfg)
        self.clock = _Clock()
        TrainStep.__call__ = self.clock.around(nn.Cell.__call__)
        self.images, self.labels = random_batch(self.cfg)
        self.size = len(self.images)

    def batches(self) -> ds.Dataset:
        rows = list(zip(self.images, self.labels, strict=True)) * STEPS
        batches = ds.GeneratorDataset(rows, ["images", "labels"], num_parallel_workers=1)
        return batches.batch(self.size)

    def parts(self) -> tuple[nn.Cell, nn.Cell, nn.Optimizer]:
        network = build.bare_network(self.cfg)
        return network, build.loss(self.cfg), build.optimizer(self.cfg, network, RATE)

    def evaluator(self, network: nn.Cell) -> Evaluator:
        dataset = self.cfg.dataset
        picture = np.random.default_rng(0).integers(256, size=(*dataset.crop_size, 3))
        label = self.labels[0].astype(np.uint8)
        samples = [EvalSample(str(i), picture.astype(np.uint8), label) for i in range(VALIDATED)]
        segmenter = Segmenter(network, IMAGENET_RGB)
        metric = ConfusionMatrix(dataset.num_classes)
        return Evaluator(segmenter, samples, metric, dataset.class_names, "val")


def trainer(cfg: DictConfig) -> Work:
    """Fits with the default callbacks and logger, validation and checkpoints."""
    fit = _Fit(cfg)
    facts: dict[str, Any] = {}

    def run() -> float:
        gc.collect()  # of the previous fit; during the steps of this one it would take seconds
        stopwatch, validation, saving = _Stopwatch(fit.clock), _Clock(), _Clock()
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            fit.cfg.output_dir = folder
            network, loss, optimizer = fit.parts()
            ours: Any = build.trainer(fit.cfg)  # some of its methods are replaced
            ours.callbacks.append(stopwatch)
            ours.evaluate = validation.around(ours.evaluate)
            ours.save_weights = saving.around(ours.save_weights)
            ours.checkpointing.save = saving.around(ours.checkpointing.save)
            ours.fit(network, loss, optimizer, fit.batches(), fit.evaluator(network))
        facts["validation_seconds"] = validation.seconds
        facts["checkpoint_seconds"] = saving.seconds
        return _summarized(stopwatch, facts)

    return Work(run, fit.size, facts)


def bare(cfg: DictConfig) -> Work:
    """The same step under `mindspore.train.Model`, with no callback but the stopwatch."""
    fit = _Fit(cfg)
    facts: dict[str, Any] = {}
    step = TrainStep(*fit.parts())

    def run() -> float:
        stopwatch = _Stopwatch(fit.clock)
        model = ms.train.Model(step)
        model.train(1, fit.batches(), callbacks=[stopwatch], dataset_sink_mode=False)
        return _summarized(stopwatch, facts)

    return Work(run, fit.size, facts)


def _summarized(stopwatch: _Stopwatch, facts: dict[str, Any]) -> float:
    """Adds the shortest time of a step, and of the overhead beside it; returns their sum."""
    whole, step = stopwatch.seconds
    for name, seconds in (("step_seconds", step), ("beside_seconds", whole - step)):
        facts[name] = min(seconds, facts.get(name, seconds))
    return whole
