"""The curves of a run's `metrics.csv`."""

import csv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Curve:
    """The values of one log key: three arrays of one length."""

    epochs: np.ndarray  # from 1
    steps: np.ndarray  # from 1
    values: np.ndarray  # may hold NaN


def read_curves(path: Path) -> dict[str, Curve]:
    """The curves of a `metrics.csv` by log key; what is no number in it is left out.

    Raises:
        OSError: The file cannot be read.
    """
    points: dict[str, list[tuple[float, float, float]]] = {}
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(line.replace("\0", "") for line in file):
            for key, text in row.items():
                if key in ("epoch", "step", None) or not text:
                    continue
                with suppress(KeyError, TypeError, ValueError):  # a line cut off in the middle
                    point = float(row["epoch"]), float(row["step"]), float(text)
                    points.setdefault(key, []).append(point)
    return {key: Curve(*np.array(found).T) for key, found in points.items()}
