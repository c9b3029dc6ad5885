"""Checks of losses, optimizers, training steps, inference and whole fits."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from hydra.utils import instantiate
from mindspore import Tensor, nn
from mindspore._c_expression import MSContext
from omegaconf import OmegaConf

from src.check_device.check import Arrays, NotSupported
from src.check_device.layers import CLASSES, normal
from src.cli import build
from src.data.loader import EpochSampler
from src.device.precision import set_precision
from src.device.runtime import setup_device
from src.engine.checkpoint import load_state, save_state, save_weights
from src.engine.segmenter import Segmenter
from src.engine.train_step import TrainStep
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.models.backbones.compact import Compact
from src.models.backbones.pyramid import Pyramid
from src.models.fcn import FCN
from src.models.weights import load_weights
from src.optim.optimizers import Momentum
from src.utils.normalization import IMAGENET_RGB

CROP = (96, 96)
IMAGE_SIZES = ((48, 80), (97, 130))
FAILURE = "an error between two sinks"
SCALE = 2.0**10  # of the loss in float16, below which none of these gradients overflows


def labels(seed: int, *shape: int) -> np.ndarray:
    """Class ids, int32; a tenth is ignored."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, CLASSES, shape)
    return np.where(rng.random(shape) < 0.1, 255, ids).astype(np.int32)


def loss(config: dict[str, Any]) -> Arrays:
    """A loss and the gradient of its logits."""
    criterion = instantiate(config["loss"], _convert_="all")
    logits = 3 * normal(0, 2, CLASSES, 40, 56)
    value, gradient = ms.value_and_grad(criterion)(Tensor(logits), Tensor(labels(1, 2, 40, 56)))
    return {"loss": value.asnumpy(), "gradient": gradient.asnumpy()}


def small_network(backbone: nn.Cell | None = None) -> nn.Cell:
    """An FCN-8s whose weights are the same on all devices, none of them zero.

    Batch norm shifts most channels well above zero, and every fourth well below: near zero,
    rounding would decide ReLU's slope, and half-precision gradients would differ by a tenth.
    """
    network = FCN(backbone or Compact((8, 12, 16, 24, 32)), CLASSES)
    for number, parameter in enumerate(network.trainable_params()):
        if parameter.name.endswith(".beta"):
            values = np.where(np.arange(parameter.size) % 4 == 0, -4, 4)
        elif parameter.name.endswith(".gamma"):
            values = np.ones(parameter.shape)
        elif parameter.ndim == 4 and not parameter.name.startswith("upscore"):
            inputs = np.prod(parameter.shape[1:])
            values = normal(number, *parameter.shape) * np.sqrt(2 / inputs)
        else:
            continue
        parameter.set_data(Tensor(values.astype(np.float32)))
    return network


def weights(network: nn.Cell) -> dict[str, np.ndarray]:
    """Copies of all parameters by name."""
    return {p.name: p.asnumpy().copy() for p in network.get_parameters()}


def changes(before: dict[str, np.ndarray], network: nn.Cell) -> dict[str, np.ndarray]:
    """The changes of the parameters since the copies `before` were made."""
    return {f"change of {name}": array - before[name] for name, array in weights(network).items()}


def optimizer(config: dict[str, Any]) -> Arrays:
    """Changes of the weights after three updates with given gradients."""
    cfg = OmegaConf.create(config)
    network = small_network()
    before = weights(network)
    schedule = instantiate(cfg.scheduler, _convert_="all")(
        learning_rate=cfg.optimizer.learning_rate, total_steps=3, steps_per_epoch=3
    )
    update = build.optimizer(cfg, network, schedule)
    for step in range(3):
        update(tuple(Tensor(normal(step, *p.shape)) for p in update.parameters))
    return changes(before, network)


def cross_entropy() -> CrossEntropy:
    """The loss in the form that `device.one_hot_labels` selects for this device."""
    return CrossEntropy(one_hot=ms.get_context("device_target") != "CPU")


def batch() -> tuple[Tensor, Tensor]:
    """Images and labels of a training step."""
    return Tensor(normal(0, 4, 3, *CROP)), Tensor(labels(1, 4, *CROP))


def train_step(
    network: nn.Cell, level: str = "O0", dtype: str = "float16", **options: Any
) -> TrainStep:
    """The step of a fit, in training mode."""
    set_precision(network, level, dtype)
    scaled = level != "O0" and dtype == "float16"
    scaler = ms.amp.DynamicLossScaler(SCALE, 2, 1000) if scaled else None
    momentum = Momentum(network.trainable_params(), 1.0, 0.9)
    step = TrainStep(network, cross_entropy(), momentum, loss_scaler=scaler, **options)
    return step.set_train()


def training_step(level: str = "O0", **options: Any) -> Arrays:
    """Loss of a training step, and the changes that it makes to weights and statistics."""
    network = small_network()
    before = weights(network)
    found = train_step(network, level, **options)(*batch())
    return {"loss": found.asnumpy(), **changes(before, network)}


def equal_blocks() -> Arrays:
    """A training step whose equal blocks are parsed once: differences from one without."""
    changed = []
    for lazy_inline in (False, True):
        network = small_network(Pyramid((16, 24, 32), (3, 3, 1), stem_channels=(8, 12)))
        before = weights(network)
        train_step(network, lazy_inline=lazy_inline)(*batch())
        changed.append(changes(before, network))
    plain, marked = changed
    return {
        name: (marked[name] - array) / (np.abs(array).max() or 1) for name, array in plain.items()
    }


def bfloat16_step() -> Arrays:
    """The same in mixed precision with bfloat16, which needs no loss scaling."""
    target = ms.get_context("device_target")
    if target != "Ascend" or MSContext.get_instance().get_ascend_soc_version() == "ascend910":
        raise NotSupported("bfloat16 convolutions exist on Ascend from the A2 cards on")
    return training_step("O2", dtype="bfloat16")


def inference() -> Arrays:
    """Probabilities of images of two sizes: one graph with dynamic height and width."""
    network = small_network()
    for parameter in network.trainable_params():  # otherwise most probabilities are 0 or 1
        if parameter.name.startswith("score"):
            parameter.set_data(parameter / 10)
    segmenter = Segmenter(network, IMAGENET_RGB)
    found = {}
    for height, width in IMAGE_SIZES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        found[f"probabilities at {height}×{width}"] = segmenter.probabilities(image)
    return found


def new_sizes() -> Arrays:
    """How many seconds longer the first image of a size takes than the second: a median of eight.

    Close to 0 if one graph and its kernels serve all sizes; otherwise one is compiled for each.
    """
    segmenter = Segmenter(small_network(), IMAGENET_RGB)

    def seconds(number: int) -> float:
        image = np.zeros((64 * number, 96 * number, 3), np.uint8)
        started = time.perf_counter()
        segmenter.predict(image)
        return time.perf_counter() - started

    seconds(1)
    beyond = [seconds(number) - seconds(number) for number in range(2, 10)]
    return {"seconds": np.array(max(0.0, float(np.median(beyond))))}


def checkpoints() -> Arrays:
    """Weights and training state after an update, saved and loaded: differences."""
    network, other = small_network(), small_network()
    step, fresh = train_step(network), train_step(small_network())
    step.optimizer(tuple(Tensor(normal(0, *p.shape)) for p in step.optimizer.parameters))
    with tempfile.TemporaryDirectory() as folder:
        save_weights(network, Path(folder) / "weights.ckpt")
        save_state(step, {}, Path(folder))
        load_weights(other, Path(folder) / "weights.ckpt", strict=True)
        load_state(fresh, Path(folder))
    pairs = {"weights": (network, other), "state": (step, fresh)}
    return {
        f"{kind}: {name}": array - weights(loaded)[name]
        for kind, (saved, loaded) in pairs.items()
        for name, array in weights(saved).items()
    }


class _Samples:
    """Eight training samples an epoch, different in each epoch."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        return normal(int(key), 3, 64, 64), labels(int(key), 64, 64)


def fit(sink_mode: bool, callbacks: Sequence[ms.train.Callback] = ()) -> Arrays:
    """The changes of the weights after two epochs of four steps."""
    samples = _Samples()
    rows = ds.GeneratorDataset(
        samples, ["images", "labels"], sampler=EpochSampler(len(samples), seed=0)
    )
    network = small_network()
    before = weights(network)
    momentum = Momentum(network.trainable_params(), 0.05, 0.9)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(folder, callbacks, (), max_epochs=2, save_last=False, sink_mode=sink_mode)
        trainer.fit(network, cross_entropy(), momentum, rows.batch(2))
    return changes(before, network)


def sink_mode() -> Arrays:
    """Two epochs, a sink each: differences from feeding the device step by step."""
    if ms.get_context("device_target") == "CPU":
        raise NotSupported("MindSpore sinks no data on the CPU")
    sunk, fed = fit(sink_mode=True), fit(sink_mode=False)
    return {name: (array - fed[name]) / np.abs(fed[name]).max() for name, array in sunk.items()}


class _Failing(ms.train.Callback):
    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        raise RuntimeError(FAILURE)


def fail(target: str, id: int) -> None:
    """A fit with sinking that ends with an error; run in a process of its own."""
    setup_device(target, id)
    fit(sink_mode=True, callbacks=[_Failing()])


def sink_that_fails() -> Arrays:
    """Whether a process ends by itself after an error between two sinks: 0, or 1 if it hangs.

    Threads that feed the device could keep the process from ending.
    """
    target = ms.get_context("device_target")
    if target == "CPU":
        raise NotSupported("MindSpore sinks no data on the CPU")
    return end_after_error(target, ms.get_context("device_id"))


def end_after_error(target: str, id: int, patience: float = 300) -> Arrays:
    """Runs `fail` on a device; raises RuntimeError if it ends with another error than expected."""
    program = f"from src.check_device import training; training.fail({target!r}, {id})"
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        return {"hangs": np.ones(1)}
    print(done.stderr)
    if done.returncode != 1 or FAILURE not in done.stderr:
        last = done.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"exit code {done.returncode}: {last}")
    return {"hangs": np.zeros(1)}
