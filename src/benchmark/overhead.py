"""What `Trainer.fit` with all default callbacks costs beside a bare `Model.train`."""

import functools
import tempfile
import time
from collections.abc import Callable

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import nn
from omegaconf import DictConfig

from src import build
from src.benchmark.networks import RATE
from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.cli import compose_config
from src.data.datamodule import EvalSample
from src.engine.evaluator import Evaluator
from src.engine.inference import Segmenter
from src.engine.step import TrainStep
from src.metrics import ConfusionMatrix
from src.utils.normalization import IMAGENET_RGB

STEPS, VALIDATED = 60, 4
# Steps of about a tenth of a second on a CPU, so that what comes on top of them shows
SETTING = [
    "model/backbone=compact",
    "dataset.batch_size=4",
    "dataset.crop_size=[96,96]",
    "trainer.max_epochs=1",
]


class _Stopwatch(ms.train.Callback):
    """The time from one step's end to the next within an epoch, the epoch's first step left out."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[float] = []
        self._last: float | None = None

    def on_train_epoch_begin(self, run_context: ms.train.RunContext) -> None:
        self._last = None

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.steps.append(now - self._last)
        self._last = now


class _Clock:
    """Adds up the seconds that functions take, calls within calls once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args, **kwargs):
            started = time.perf_counter()
            self._depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - started

        return timed


class _Fit:
    """A small network on random images, made anew for each fit."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = compose_config("train", SETTING)
        self.cfg.device = cfg.device
        build.setup(self.cfg)
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
    fit, facts = _Fit(cfg), {}

    def run() -> float:
        stopwatch, validation, saving = _Stopwatch(), _Clock(), _Clock()
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            fit.cfg.output_dir = folder
            network, loss, optimizer = fit.parts()
            ours = build.trainer(fit.cfg)
            ours.callbacks.append(stopwatch)
            ours.evaluate = validation.around(ours.evaluate)
            ours.save_weights = saving.around(ours.save_weights)
            ours.boundary.save = saving.around(ours.boundary.save)
            ours.fit(network, loss, optimizer, fit.batches(), fit.evaluator(network))
        facts["validation_seconds"] = validation.seconds
        facts["checkpoint_seconds"] = saving.seconds
        return float(np.mean(stopwatch.steps))

    return Work(run, fit.size, facts)


def bare(cfg: DictConfig) -> Work:
    """The same step under `mindspore.train.Model`, with no callback but the stopwatch."""
    fit = _Fit(cfg)
    step = TrainStep(*fit.parts())

    def run() -> float:
        stopwatch = _Stopwatch()
        model = ms.train.Model(step)
        model.train(1, fit.batches(), callbacks=[stopwatch], dataset_sink_mode=False)
        return float(np.mean(stopwatch.steps))

    return Work(run, fit.size)
