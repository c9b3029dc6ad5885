"""Reads run directories, whole, broken or still growing."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.runs.directory import RESOLVED_CONFIG
from src.runs.summary import SUMMARY, Tracked, trackers
from src.utils.curves import Curve, read_curves
from src.utils.errors import UserError, error_summary
from src.utils.files import read_json

log = logging.getLogger(__name__)

SCORES = ("miou", "macc", "pixel_acc", "fwiou")
_COMPOSED_CONFIG = Path(".hydra", "config.yaml")
_METRICS, _EVALUATION = "metrics.csv", "eval.json"
_NO_RUNS = {
    "checkpoints",
    "figures",
    "predictions",
    "wandb",
    "tensorboard",
    "swanlog",
    "results",
    ".hydra",
}


@dataclass(frozen=True)
class Run:
    """One run as read from its directory; what is unknown is None, NaN or empty."""

    path: Path
    name: str  # the path below the folder of the report
    command: str  # train or eval
    status: str  # running, completed, interrupted, failed
    reason: str | None = None
    best_epoch: int | None = None
    last_epoch: int | None = None
    max_epochs: int | None = None
    seconds: float = math.nan
    device: str | None = None
    git_commit: str | None = None
    config: dict[str, Any] = field(default_factory=dict)  # by dotted key
    scores: dict[str, float] = field(default_factory=dict)  # fractions of the best weights
    class_iou: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    figures: tuple[Path, ...] = ()
    trackers: dict[str, Tracked] = field(default_factory=dict)  # by name


def read_runs(root: Path) -> list[Run]:
    """The training and evaluation runs at and below a folder, by name.

    A directory that cannot be read is left out with a warning that names it.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of the runs, as experiments")
    runs = []
    for path in _run_directories(root):
        try:
            run = read_run(path, path.relative_to(root).as_posix())
        except (UserError, ValueError, OSError) as error:
            log.warning("run left out: %s", error)
            continue
        if run.command in ("train", "eval"):
            runs.append(run)
    return runs


def read_run(path: Path, name: str) -> Run:
    """Reads one run directory.

    Raises:
        UserError: `summary.json` is missing or broken.
    """
    if not (path / SUMMARY).exists():
        raise UserError(f"{path}: has no {SUMMARY}")
    summary = _mapping(read_json(path / SUMMARY), path / SUMMARY)
    config = _flat(_optional(path / RESOLVED_CONFIG, _read_yaml))
    config |= _rules(_flat(_optional(path / _COMPOSED_CONFIG, _read_yaml)), config)
    evaluation = _optional(path / _EVALUATION, read_json)
    curves = _optional(path / _METRICS, read_curves)
    best, last = _part(summary, "best"), _part(summary, "last")
    scores = {s: _number(evaluation.get(s, best.get(f"val/{s}"))) for s in SCORES}
    class_iou = {
        str(label): _number(row.get("iou"))
        for label, row in _part(evaluation, "per_class").items()
        if isinstance(row, dict)
    }
    return Run(
        path=path,
        name=path.name if name == "." else name,
        command=str(summary.get("command")),
        status=str(summary.get("status", "unknown")),
        reason=summary.get("reason") and " ".join(str(summary["reason"]).split()),
        best_epoch=_whole(best.get("epoch")) or _epoch_of(curves, scores["miou"]),
        last_epoch=_whole(last.get("epoch")) or _last_epoch(curves),
        max_epochs=_whole(config.get("trainer.max_epochs")),
        seconds=_number(summary.get("seconds")),
        device=summary.get("device"),
        git_commit=summary.get("git_commit"),
        config=config,
        scores=scores,
        class_iou=class_iou,
        curves=curves,
        protocol=_part(evaluation, "protocol"),
        figures=tuple(sorted(path.glob("figures/*.png"))),
        trackers=trackers(summary),
    )


def _run_directories(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name not in _NO_RUNS)
        if {SUMMARY, RESOLVED_CONFIG, _METRICS} & set(files):
            yield Path(folder)


def _optional(path: Path, read: Any) -> dict[str, Any]:
    """What a file holds; nothing, with a warning if it is there but broken."""
    if not path.exists():
        return {}
    try:
        return _mapping(read(path), path)
    except (UserError, OSError, ValueError, yaml.YAMLError) as error:
        log.warning("%s: left out, not readable (%s)", path, error_summary(error))
        return {}


def _mapping(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no keys and values")
    return content


def _part(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys to dotted ones; a list is a value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _rules(composed: dict[str, Any], resolved: dict[str, Any]) -> dict[str, str]:
    """The names of rules that gave lists: what the rule of the class weights gives of one fold is
    not what it gives of another."""
    return {
        key: value
        for key, value in composed.items()
        if isinstance(value, str) and "${" not in value and isinstance(resolved.get(key), list)
    }


def _number(value: Any) -> float:
    with suppress(TypeError, ValueError):
        return float(value)
    return math.nan


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _epoch_of(curves: dict[str, Curve], miou: float) -> int | None:
    """The epoch whose validation gave that value; for runs that wrote no summary of it."""
    curve = curves.get("val/miou")
    if curve is None or math.isnan(miou) or np.isnan(curve.values).all():
        return None
    return int(curve.epochs[np.nanargmin(abs(curve.values - miou))])


def _last_epoch(curves: dict[str, Curve]) -> int | None:
    return max((int(curve.epochs[-1]) for curve in curves.values()), default=None)
