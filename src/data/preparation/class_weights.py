"""Weights of classes for a loss, by how often the classes are in the training labels."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from src.utils.errors import UserError, nearest

Rows = Sequence[Mapping[str, Any]]


def median_frequency(classes: Rows) -> list[float]:
    """The median of all f over f, with f the class's share of the images that hold it.

    Eigen & Fergus 2015, as SegNet takes it. Shares are of valid pixels; a class without a pixel
    gets 0 and stays out of the median.
    """
    shares = [row["pixels"] / row["image_pixels"] if row["pixels"] else None for row in classes]
    middle = median(share for share in shares if share)
    return [middle / share if share else 0.0 for share in shares]


def log_frequency(classes: Rows) -> list[float]:
    """1 / ln(1.02 + p), with p the class's share of all valid pixels (ENet, 2016)."""
    return [1 / math.log(1.02 + row["share"]) for row in classes]


RULES: dict[str, Callable[[Rows], list[float]]] = {
    "median_frequency": median_frequency,
    "log_frequency": log_frequency,
}


def class_weights(key: str, rule: str, classes: Rows) -> list[float]:
    """The weights by a rule's name, to four digits.

    Args:
        key: Of the config, for the message.
        rule: One of `RULES`.
        classes: The rows of a preparation's report, see `LabelStatistics.report`.

    Raises:
        UserError: There is no such rule.
    """
    if rule not in RULES:
        hint = nearest(rule, RULES)
        raise UserError(f"{key}={rule}: expected a list, null or one of {', '.join(RULES)}{hint}")
    return [float(f"{weight:.4g}") for weight in RULES[rule](classes)]
