"""The form of an exported file, and its metadata."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.utils.errors import UserError
from src.utils.normalization import Normalization
from src.utils.padding import MULTIPLE

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class Specification:
    """The form of an exported file.

    Attributes:
        format: "mindir", "onnx" or "safetensors".
        size: (H, W) in pixels of the images it takes; None: any.
        batch_size: Images it takes at once; None: any number.
        normalize: Normalisation and colour reordering are inside: it takes RGB of 0 to 255.
        argmax: It gives class ids, not logits.

    Raises:
        UserError: Weights alone are to normalise, to give class ids or to have a size.
    """

    format: str
    size: tuple[int, int] | None = None
    batch_size: int | None = None
    normalize: bool = False
    argmax: bool = False

    def __post_init__(self) -> None:
        if self.format != "safetensors":
            return
        for name in ("size", "batch_size", "normalize", "argmax"):
            if getattr(self, name):
                raise UserError(
                    f"{name}={_plain(getattr(self, name))}: format=safetensors holds weights "
                    f"alone; leave {name} out, or use format=mindir or format=onnx"
                )

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """N×3×H×W, None where any size goes."""
        return (self.batch_size, 3, *(self.size or (None, None)))

    def metadata(
        self,
        normalization: Normalization,
        class_names: Sequence[str],
        ignore_index: int,
        stride: int | None,
        skip_scales: Sequence[float],
        multiple: int,
    ) -> dict[str, str]:
        """The metadata that a user of the file needs, as texts; lists are JSON.

        Args:
            normalization: What the network expects, also when the file does it itself.
            class_names: In the order of the class ids.
            ignore_index: Label of pixels left out in training; the network never predicts it.
            stride: Prediction stride; None of a network without one.
            skip_scales: Factors on the stride-16 and stride-8 features before they are scored.
            multiple: H and W must be multiples of it.
        """
        order = normalization.color_order.upper()
        wants = "RGB, 0 to 255" if self.normalize else f"{order}, (0 to 255 - mean) / std"
        shape = " x ".join(str(d or s) for d, s in zip(self.input_shape, "N3HW", strict=True))
        gives = "class_ids: N x H x W int32" if self.argmax else "logits: N x C x H x W float32"
        fill = "mean" if self.normalize else "zeros"
        padding = (
            ("any H and W" if multiple == 1 else f"H and W: multiples of {multiple}")
            + f"; src.eval and src.predict pad below and right with {fill} to multiples of "
            f"{MULTIPLE} and cut the output back"
        )
        return {
            **_project(),
            "num_classes": str(len(class_names)),
            "class_names": json.dumps(list(class_names), ensure_ascii=False),
            "ignore_index": str(ignore_index),
            "stride": _plain(stride),
            "skip_scales": json.dumps(list(skip_scales)),
            "color_order": normalization.color_order,
            "mean": json.dumps(normalization.mean),
            "std": json.dumps(normalization.std),
            "normalize": _plain(self.normalize),
            "argmax": _plain(self.argmax),
            "input": f"images: {shape} float32, {wants}",
            "output": gives,
            "size": _plain(self.size),
            "size_multiple": str(multiple),
            "padding": "none, images have the one size" if self.size else padding,
            "padding_multiple": "1" if self.size else str(MULTIPLE),
        }


def _project() -> dict[str, str]:
    text = _PYPROJECT.read_text(encoding="utf-8")
    name, version = (re.findall(rf'^{key} = "(.+)"', text, re.M)[0] for key in ("name", "version"))
    return {"project": name, "project_version": version}


def _plain(value: object) -> str:
    return json.dumps(value)
