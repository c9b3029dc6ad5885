"""Types and ranges of the keys that many configs share."""

from dataclasses import dataclass
from typing import Any

PLAIN = (int, float, bool, str)


@dataclass(frozen=True)
class Rule:
    """The type and range of a value."""

    kind: type[Any]  # int, float, bool, str
    low: float | None = None
    high: float | None = None
    above: float | None = None  # exclusive lower bound
    choices: tuple = ()
    nullable: bool = False
    pair: bool = False  # a list of two such values
    listed: bool = False  # a list of such values

    def describe(self) -> str:
        if self.choices:
            text = "one of " + ", ".join(map(str, self.choices))
        else:
            names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
            text = names[self.kind]
            if self.low is not None and self.high is not None:
                text += f" from {self.low:g} to {self.high:g}"
            elif self.low is not None:
                text += f" of at least {self.low:g}"
            elif self.above is not None:
                text += f" above {self.above:g}"
                text += f" and up to {self.high:g}" if self.high is not None else ""
        if self.pair:
            text = f"a list of two: each {text}"
        if self.listed:
            text = f"a list: each {text}"
        return text + (" or null" if self.nullable else "")

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.nullable
        if self.pair or self.listed:
            single = Rule(self.kind, self.low, self.high, self.above, self.choices)
            right = isinstance(value, list) and all(map(single.allows, value))
            return right and (self.listed or len(value) == 2)
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.kind:
            return False
        if self.choices:
            return value in self.choices
        return not (
            value != value
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
        )


DEVICE_FLAGS = (
    "sink_mode", "deterministic", "distributed", "sync_batch_norm", "fast_convolutions",
    "cache_graph", "lazy_inline", "one_hot_labels",
)  # fmt: skip
RULES: dict[str, Rule] = {
    "seed": Rule(int, low=0, high=2**31 - 1),
    "split": Rule(str, nullable=True),
    "splits": Rule(str, listed=True, nullable=True),
    "tags": Rule(str, listed=True),
    "count": Rule(int, low=1),
    "limit_samples": Rule(int, low=1, nullable=True),
    "per_image": Rule(bool),
    "classes": Rule(str, listed=True, nullable=True),
    "alpha": Rule(float, low=0, high=1),
    "steps": Rule(int, low=1),
    "patience": Rule(float, above=0),
    "dataset.batch_size": Rule(int, low=1),
    "dataset.folds": Rule(int, low=2, nullable=True),
    "dataset.fold": Rule(int, low=0, nullable=True),
    "dataset.fold_by": Rule(str, nullable=True),
    "dataset.fold_seed": Rule(int, low=0),
    "dataset.crop_size": Rule(int, low=32, pair=True, nullable=True),
    "dataset.scale_range": Rule(float, above=0, pair=True, nullable=True),
    "dataset.num_classes": Rule(int, low=2, high=255, nullable=True),
    "dataset.ignore_index": Rule(int, low=0, high=255),
    "dataset.num_workers": Rule(int, low=1, nullable=True),
    "dataset.limit_samples": Rule(int, low=1, nullable=True),
    "dataset.flip": Rule(float, low=0, high=1),
    "dataset.max_class_share": Rule(float, above=0, high=1, nullable=True),
    "dataset.rare_class_sampling": Rule(float, above=0, nullable=True),
    "dataset.copy_paste": Rule(str, listed=True, nullable=True),
    "dataset.copy_paste_probability": Rule(float, above=0, high=1),
    "dataset.mean": Rule(float, listed=True, nullable=True),
    "dataset.std": Rule(float, above=0, listed=True, nullable=True),
    "dataset.color_order": Rule(str, choices=("rgb", "bgr"), nullable=True),
    "model.stride": Rule(int, choices=(4, 8, 16, 32)),
    "model.auxiliary_weight": Rule(float, above=0, nullable=True),
    "model.frozen": Rule(str, listed=True),
    "model.frozen_norm": Rule(bool),
    "optimizer.learning_rate": Rule(float, low=0),
    "optimizer.weight_decay": Rule(float, low=0),
    "optimizer.momentum": Rule(float, low=0, high=1),
    "scheduler.warmup_steps": Rule(int, low=0),
    "device.target": Rule(str, choices=("CPU", "GPU", "Ascend")),
    "device.id": Rule(int, low=0),
    "device.mode": Rule(str, choices=("graph", "pynative")),
    "device.amp_level": Rule(str, choices=("O0", "O2", "O3", "auto")),
    "device.amp_dtype": Rule(str, choices=("float16", "bfloat16")),
    "device.all_reduce_megabytes": Rule(float, above=0, nullable=True),
    "device.jit_level": Rule(str, choices=("O0", "O1", "O2"), nullable=True),
    **{f"device.{flag}": Rule(bool) for flag in DEVICE_FLAGS},
    "device.lr_scaling": Rule(str, choices=("none", "linear", "sqrt")),
    "device.threads": Rule(int, low=1, nullable=True),
    "trainer.max_epochs": Rule(int, low=1),
    "trainer.limit_train_batches": Rule(int, low=1, nullable=True),
    "trainer.limit_val_batches": Rule(int, low=0, nullable=True),
    "trainer.val_every_n_epochs": Rule(int, low=1),
    "trainer.log_every_n_steps": Rule(int, low=1),
    "trainer.save_every_n_steps": Rule(int, low=1, nullable=True),
    "trainer.keep_top_k": Rule(int, low=0),
    "trainer.ema_decay": Rule(float, low=0, high=0.999999, nullable=True),
    "trainer.monitor_mode": Rule(str, choices=("max", "min")),
    "trainer.gradient_clip": Rule(float, above=0, nullable=True),
    "trainer.accumulate": Rule(int, low=1),
    "inference.pad_to": Rule(int, low=32, pair=True, nullable=True),
    "inference.window": Rule(int, low=32, pair=True, nullable=True),
    "inference.scales": Rule(float, above=0, listed=True),
    "inference.overlap": Rule(float, low=0, high=0.95),
    "inference.flip": Rule(bool),
    "format": Rule(str, choices=("mindir", "onnx", "safetensors")),
    "dynamic": Rule(bool, nullable=True),
    "size": Rule(int, low=1, pair=True, nullable=True),
    "batch_size": Rule(int, low=1, nullable=True),
    "normalize": Rule(bool),
    "argmax": Rule(bool),
}
