"""Loading of weights from files into networks, with the names of many frameworks."""

import json
import logging
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from safetensors import safe_open

from src.models.key_maps import KeyMap, key_maps_of
from src.models.torch_files import is_torch_file, read_torch_file
from src.utils.errors import UserError
from src.utils.normalization import Normalization

log = logging.getLogger(__name__)

Shape = tuple[int, ...]

_TORCH_SUFFIXES = {".pth", ".pt"}
# Names that DataParallel and torch.compile put around the cells they wrap, wherever they are
_TORCH_WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod)\.")
# Below this share of the backbone a file is taken for that of another network
_LEAST_FRACTION = 0.1
# fc6 and fc7 may have other widths than the file's, as the class scores: they are new then
_HEAD = ("backbone.conv6.", "backbone.conv7.")


@dataclass(frozen=True)
class LoadReport:
    """Which parameters of a file and of a network matched.

    Attributes:
        key_map: Whose names the file has.
        prefix: What the file puts before them, as `encoder.`.
        loaded: Parameters of the network (our names) that now have the file's values.
        missing: Parameters of the network that the file does not hold.
        left_over: Names in the file that the network has no use for; optimizer states not counted.
        shape_mismatch: From our name to (shape in the file, shape in the network); not loaded.
        fraction: Share of the backbone's parameters, by number of tensors, that were loaded.
        normalization: What the weights expect of an image; None if the file's names do not say.
    """

    key_map: str
    prefix: str
    loaded: list[str]
    missing: list[str]
    left_over: list[str]
    shape_mismatch: dict[str, tuple[Shape, Shape]]
    fraction: float
    normalization: Normalization | None


def read_parameters(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a MindSpore, safetensors or PyTorch file, by the file's names.

    A PyTorch file is known by its content, whatever its suffix: `.pth`, `.pth.tar`, even `.ckpt`.

    Raises:
        UserError: There is no such file, it may not be read, is damaged, empty, of another kind, or
            holds more than parameters.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: may not be read by this user; its owner can chmod a+r it")
    try:
        arrays = _read(path)
    except UserError:
        raise
    except Exception as error:  # the readers raise whatever their parsers do
        log.debug("%s", path, exc_info=True)
        raise UserError(
            f"{path}: not a readable {path.suffix} checkpoint of {path.stat().st_size} bytes "
            "(cut off, or of another kind); fetch or write it again"
        ) from error
    if not arrays:
        raise UserError(f"{path}: holds no parameters; expected a checkpoint of a network")
    return arrays


def load_weights(network: nn.Cell, path: str | Path, strict: bool = False) -> LoadReport:
    """Loads what fits from a file into an `FCN`; logs what did and what did not.

    The key map is the one that explains most of the file, with whatever the file puts before all
    names. Weights of fully connected layers become those of convolutions. Score layers that the
    file lacks, or has for another number of classes, keep their start: so FCN-16s continues from
    FCN-32s, and a new task from an old one.

    Args:
        network: Left untouched if an error is raised.
        path: See `read_parameters`.
        strict: The file and the network must match in full.

    Raises:
        UserError: The file is of another architecture, or, if `strict`, differs in anything.
    """
    stored = read_parameters(path)
    key_map, prefix = _best_key_map(key_maps_of(network), stored)
    inner = {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}
    parameters = network.parameters_dict()
    values, mismatch = _match(key_map, inner, parameters)
    used = {prefix + name for name in (*key_map.names.values(), *key_map.biases.values())}
    backbone = [name for name in parameters if name.startswith("backbone.")]
    report = LoadReport(
        key_map=key_map.title,
        prefix=prefix,
        loaded=list(values),
        missing=[name for name in parameters if name not in values and name not in mismatch],
        left_over=[n for n in stored if n not in used and not _is_training_state(n, stored)],
        shape_mismatch=mismatch,
        fraction=sum(name in values for name in backbone) / max(1, len(backbone)),
        normalization=_exported_normalization(path) or key_map.normalization,
    )
    if strict:
        _require_all(report, path)
    else:
        _require_same_kind(report, path, stored, backbone)
    for name, value in values.items():
        parameters[name].set_data(Tensor(value, parameters[name].dtype))
    _log(report, path, len(backbone))
    return report


def _best_key_map(key_maps: Sequence[KeyMap], stored: Collection[str]) -> tuple[KeyMap, str]:
    """The key map that explains most names, and the prefix before them; the shortest that does."""
    counts = [(each, prefix, n) for each in key_maps for prefix, n in each.count(stored).items()]
    key_map, prefix, _ = max(
        counts, key=lambda each: (each[2], -len(each[1])), default=(key_maps[0], "", 0)
    )
    return key_map, prefix


def _exported_normalization(path: str | Path) -> Normalization | None:
    """The normalisation in the metadata of a safetensors file of ours."""
    if Path(path).suffix != ".safetensors":
        return None
    with safe_open(path, framework="np") as file:
        about = file.metadata() or {}
    if not {"color_order", "mean", "std"} <= about.keys():
        return None
    return Normalization(about["color_order"], json.loads(about["mean"]), json.loads(about["std"]))


def _read(path: Path) -> dict[str, np.ndarray]:
    if is_torch_file(path):
        return {_TORCH_WRAPPERS.sub("", name): v for name, v in read_torch_file(path).items()}
    if path.suffix in (".ckpt", ".safetensors"):
        return _read_mindspore(path)
    if not _TORCH_SUFFIXES.isdisjoint(path.suffixes):
        raise ValueError("no file of torch.save")
    raise UserError(f"{path}: expected a .ckpt, .safetensors, .pth or .pt file")


def _read_mindspore(path: Path) -> dict[str, np.ndarray]:
    entries = ms.load_checkpoint(str(path), format=path.suffix[1:])
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    return {
        # NumPy has no bfloat16
        name: (value.float() if value.dtype == ms.bfloat16 else value).asnumpy()
        for name, value in tensors.items()
    }


def _match(
    key_map: KeyMap, stored: dict[str, np.ndarray], parameters: dict[str, Parameter]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[Shape, Shape]]]:
    """The values that fit, by our names, and the shapes (file, network) of those that do not."""
    values: dict[str, np.ndarray] = {}
    mismatch: dict[str, tuple[Shape, Shape]] = {}
    for name, theirs in key_map.names.items():
        if theirs in stored:
            shape = tuple(parameters[name].shape)
            value = _convolutionalised(stored[theirs], shape)
            if value.shape == shape:
                values[name] = value
            else:
                mismatch[name] = (value.shape, shape)
    for name, bias in key_map.biases.items():
        mean = values.get(name, parameters[name].asnumpy())
        if bias in stored and stored[bias].shape == mean.shape:
            values[name] = mean - stored[bias]
    return values, mismatch


def _convolutionalised(value: np.ndarray, shape: Shape) -> np.ndarray:
    """A fully connected weight, out×(C·H·W), as that of the convolution out×C×H×W."""
    if value.ndim == 2 and len(shape) == 4 and value.size == np.prod(shape):
        return value.reshape(shape)
    return value


def _is_training_state(name: str, stored: Collection[str]) -> bool:
    """Whether an entry belongs to an optimizer or a counter: `moments.<weight>`, `global_step`."""
    inner = name.partition(".")[2]
    return not inner or inner in stored or name.endswith(".num_batches_tracked")


def _require_all(report: LoadReport, path: str | Path) -> None:
    file_shape, shape = report.shape_mismatch.get("score_fr.weight", ((0,), (0,)))
    if file_shape[0] != shape[0]:
        raise UserError(
            f"{path}: trained for {file_shape[0]} classes, the network has {shape[0]}; take the "
            f"dataset it was trained on, or dataset.num_classes={file_shape[0]}"
        )
    problems = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("not in the file", report.missing),
            ("not in the network", report.left_over),
            ("of another shape", _shapes(report)),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{path} is not of this network ({'; '.join(problems)}); give the model=, "
            "model/backbone= and model.stride= it was trained with"
        )


def _require_same_kind(
    report: LoadReport, path: str | Path, stored: Collection[str], backbone: Collection[str]
) -> None:
    known = [n for n in (*report.loaded, *report.shape_mismatch) if n.startswith("backbone.")]
    file_has, network_has = (
        any(name.endswith((".gamma", ".running_mean")) for name in names)
        for names in ([n for n in stored if n.startswith(report.prefix)], backbone)
    )
    if known and file_has != network_has:
        raise UserError(
            f"{path}: of a network {_with(file_has)} batch normalisation, this backbone is one "
            f"{_with(network_has)}; take model/backbone={'vgg16' if file_has else 'vgg16_plain'} "
            f"or model.backbone.batch_norm={str(file_has).lower()}"
        )
    shapes = [
        shape
        for name, shape in zip(report.shape_mismatch, _shapes(report), strict=True)
        if name.startswith("backbone.") and not name.startswith(_HEAD)
    ]
    if shapes:
        raise UserError(
            f"{path}: of a backbone of another depth or width ({_some(shapes, 1)}); take the "
            "model/backbone= that the file is of"
        )
    if report.fraction < _LEAST_FRACTION:
        raise UserError(
            f"{path}: holds {report.fraction:.0%} of the backbone's parameters; it has "
            f"{_some(stored)}; expected {_some(backbone)}, or the names of a known checkpoint of "
            "this backbone; take the model/backbone= that the file is of"
        )


def _with(condition: bool) -> str:
    return "with" if condition else "without"


def _shapes(report: LoadReport) -> list[str]:
    return [
        f"{name} {'×'.join(map(str, file))} in the file, {'×'.join(map(str, own))} in the network"
        for name, (file, own) in report.shape_mismatch.items()
    ]


def _some(names: Collection[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + rest


def _log(report: LoadReport, path: str | Path, backbone: int) -> None:
    in_backbone = sum(name.startswith("backbone.") for name in report.loaded)
    others = len(report.loaded) - in_backbone
    prefix = f" with prefix '{report.prefix}'" if report.prefix else ""
    log.info(
        f"{path}: {report.key_map} names{prefix}; {in_backbone} of {backbone} parameters of the "
        f"backbone loaded, {others} of the score and upscore layers"
    )
    absent = [name for name in report.missing if name.startswith("backbone.")]
    new = [name for name in report.missing if not name.startswith("backbone.")]
    if absent:
        log.warning(
            f"part of the backbone is not in the file and starts untrained: {_some(absent)}"
        )
    if new:
        log.info(f"new, not in the file: {_some(new)}")
    if report.shape_mismatch:
        log.info(f"new, of another shape: {_some(_shapes(report))}")
    if report.left_over:
        log.info(f"in the file, but not used: {_some(report.left_over)}")
