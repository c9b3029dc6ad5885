"""The check of an operation: its results on the device against expected ones."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


class NotSupported(Exception):
    """The device does not support an operation, and the project does not use it there."""


@dataclass(frozen=True)
class Result:
    """What a check found; one that failed without a difference has an `error`."""

    group: str
    name: str
    against: str
    allowed: float
    seconds: float | None = None
    difference: float | None = None
    error: str | None = None
    unsupported: str | None = None

    @property
    def failed(self) -> bool:
        """Whether results differ by more than is allowed, or there are none."""
        if self.unsupported is not None:
            return False
        return (
            self.error is not None or self.difference is None or not self.difference <= self.allowed
        )

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {**asdict(self), "failed": self.failed}


@dataclass(frozen=True)
class Check:
    """An operation, its reference, and the allowed difference.

    Attributes:
        group: The name by which `only` chooses it.
        name: Of the operation.
        run: Carries it out and returns its results; a module's function or a `functools.partial` of
            one, as it is sent to another process.
        expected: Returns the expected results, in a process on the CPU; None if `run` returns
            differences, which should be zero.
        against: Where the expected results come from.
        allowed: Largest difference, relative to the largest expected value of its array.
    """

    group: str
    name: str
    run: Callable[[], Arrays]
    expected: Callable[[], Arrays] | None
    against: str
    allowed: float

    def result(self, **found: Any) -> Result:
        """The result of this check, with the other fields of `Result` from `found`."""
        return Result(self.group, self.name, self.against, self.allowed, **found)


def judge(check: Check, found: Arrays, expected: Arrays | None, seconds: float | None) -> Result:
    """Compares results with the expected ones, or with zero."""
    if expected is None:
        expected = {name: np.zeros_like(array) for name, array in found.items()}
    difference = 0.0
    for name, right in expected.items():
        array = found[name]
        if array.shape != right.shape:
            error = f"{name}: its shape is {array.shape}, not {right.shape}"
            return check.result(seconds=seconds, error=error)
        if not np.isfinite(array).all():
            return check.result(seconds=seconds, error=f"{name}: has values that are not finite")
        scale = np.abs(right).max(initial=0) or 1.0
        off = np.abs(array.astype(np.float64) - right).max(initial=0) / scale
        difference = max(difference, float(off))
    return check.result(seconds=seconds, difference=difference)
