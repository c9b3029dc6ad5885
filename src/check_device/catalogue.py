"""All checks of a single device, and the difference allowed in each."""

from collections.abc import Callable
from functools import partial

from omegaconf import OmegaConf

from src.check_device import cann, layers, training
from src.check_device.check import Arrays, Check
from src.cli.command import CONF_DIR, compose_config

GROUPS = (
    "software", "layers", "losses", "optimizers",
    "inference", "training", "checkpoints", "sink_mode",
)  # fmt: skip

FLOAT16, BFLOAT16 = 5e-2, 2e-1
COMPILING = 0.5  # seconds; compiling takes longer, a new image size alone does not


def elementwise(target: str) -> float:
    """The allowed difference in float32 of sums, exponentials and the like."""
    return 1e-5 if target == "CPU" else 1e-3


def products(target: str) -> float:
    """The allowed difference in float32 after convolutions.

    Accelerators round the factors to 10 or 11 bits: TF32 on GPU, HF32 or float16 on Ascend.
    """
    return 1e-4 if target == "CPU" else FLOAT16


def checks(target: str) -> list[Check]:
    """The checks of "CPU", "GPU" or "Ascend", in their order."""
    modules = Check("software", "CANN's Python parts", cann.import_modules, None, "import", 0.0)
    return [modules, *_layers(target), *_losses_and_optimizers(target), *_training(target)]


def _layers(target: str) -> list[Check]:
    def check(name: str, run: str, allowed: float, **arguments: int) -> Check:
        work = partial(getattr(layers, run), **arguments)
        expected = partial(getattr(layers, f"{run}_expected"), **arguments)
        return Check("layers", name, work, expected, "NumPy", allowed)

    product, element = products(target), elementwise(target)
    return [
        check("convolution 1×1", "convolution", product, kernel=1, stride=1),
        check("convolution 3×3", "convolution", product, kernel=3, stride=1),
        check("convolution 3×3, stride 2", "convolution", product, kernel=3, stride=2),
        check("convolution 7×7", "convolution", product, kernel=7, stride=1),
        *(
            check(f"upsampling ×{factor}, three sizes", "upsampling", product, factor=factor)
            for factor in (2, 4, 8, 16, 32)
        ),
        check("max pooling", "max_pooling", 0.0),
        check("batch norm", "batch_norm", element),
        Check("layers", "dropout", layers.dropout, None, "its definition", 1e-2),
        Check("layers", "arg-max", layers.class_ids, None, "NumPy", 0.0),
    ]


def _losses_and_optimizers(target: str) -> list[Check]:
    def check(group: str, work: Callable[..., Arrays], name: str, *keys: str) -> Check:
        def on(device: str) -> Callable[[], Arrays]:
            cfg = compose_config("train", [f"{keys[0]}={name}", f"device={device}"])
            nodes = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in keys}
            return partial(work, nodes)

        run, expected = on(target.lower()), on("cpu")
        return Check(group, f"{keys[0]} {name}", run, expected, "CPU, eager", elementwise(target))

    return [
        *(check("losses", training.loss, name, "loss") for name in _options("loss")),
        *(
            check("optimizers", training.optimizer, name, "optimizer", "scheduler")
            for name in _options("optimizer")
        ),
    ]


def _training(target: str) -> list[Check]:
    def check(name: str, run: Callable[[], Arrays], allowed: float) -> Check:
        return Check("training", name, run, step, "CPU, eager, float32", allowed)

    step, product = training.training_step, products(target)
    in_parts = partial(step, accumulate=2, gradient_clip=1.0)
    saved, sunk, alike = training.checkpoints, training.sink_mode, training.equal_blocks
    new_sizes, ended = training.new_sizes, training.sink_that_fails
    return [
        _on_cpu("inference", "inference, two sizes", training.inference, product),
        Check("inference", "seconds for a new size", new_sizes, None, "a known size", COMPILING),
        _on_cpu("training", "training step, float32", step, product),
        _on_cpu("training", "the same in two parts, clipped", in_parts, product),
        check("training step, O2 with float16", partial(step, "O2"), FLOAT16),
        check("training step, O2 with bfloat16", training.bfloat16_step, BFLOAT16),
        Check("training", "equal blocks, parsed once", alike, None, "each by itself", product),
        Check("checkpoints", "save and load", saved, None, "what was saved", 0.0),
        Check("sink_mode", "sink mode, two epochs", sunk, None, "step by step", product),
        Check("sink_mode", "an error in a sink", ended, None, "its exit code", 0.0),
    ]


def _on_cpu(group: str, name: str, work: Callable[[], Arrays], allowed: float) -> Check:
    return Check(group, name, work, work, "CPU, eager", allowed)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
