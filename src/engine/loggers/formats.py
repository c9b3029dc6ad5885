"""Hyperparameters, tables and masks in the forms that several trackers take."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.visualization.overlays import colorize
from src.visualization.sheets import Case, Classes

_GROUPS = ("dataset", "model", "loss", "optimizer", "scheduler", "trainer", "device", "seed")


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """What a run's config says of the experiment, by dotted key."""
    return dict(_leaves({group: config[group] for group in _GROUPS if group in config}))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, its numbers to four digits."""
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[f"{c:.4g}" if isinstance(c, float) else str(c) for c in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def side_by_side(case: Case, classes: Classes) -> np.ndarray:
    """Image, label and prediction in one picture, H×3W×3 uint8 RGB."""
    masks = [colorize(ids, classes.palette) for ids in (case.label, case.pred)]
    return np.concatenate([case.image, *masks], axis=1)


def _leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [
            leaf
            for key, child in node.items()
            for leaf in _leaves(child, f"{path}.{key}" if path else str(key))
        ]
    return [(path, node if isinstance(node, bool | int | float | str) else str(node))]
