"""Folds of cross-validation: the division of samples into parts, of which one is held out."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.data.sources.file_lists import few
from src.utils.errors import UserError


@dataclass(frozen=True)
class Folds:
    """A seeded division of samples into folds of similar size; groups of samples stay together.

    Args:
        count: Number of folds, at least 2.
        held_out: The fold that is validated on, from 0; the others are trained on.
        group_by: Regular expression that is searched for in a sample's name; what its first group
            matches (all that it matches, if it has none) is the sample's group, such as a sequence
            or a patient. None makes each sample a group.
        seed: Of the order in which groups of the same size are assigned.
    """

    count: int
    held_out: int | None
    group_by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.held_out is None or not 0 <= self.held_out < self.count:
            fold = "null" if self.held_out is None else self.held_out
            raise UserError(
                f"dataset.fold={fold} of dataset.folds={self.count}: expected the fold that is "
                f"held out, from 0 to {self.count - 1}; -m 'dataset.fold=range({self.count})' runs "
                "all of them"
            )
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise UserError(
                f"dataset.fold_by={self.group_by}: no regular expression ({error})"
            ) from error

    def divide(self, names: Sequence[str]) -> np.ndarray:
        """The fold of each sample, N int64.

        The largest group goes first, each to the fold that holds the fewest samples so far; groups
        of one size go in an order that the seed draws.

        Raises:
            UserError: A name does not match `group_by`, or there are fewer groups than folds.
        """
        groups = self._groups(names)
        sizes = Counter(groups)
        if len(sizes) < self.count:
            if self.group_by is None:
                found = f"there are {len(sizes)} samples"
            else:
                found = f"dataset.fold_by={self.group_by} finds {len(sizes)} groups"
                found += f" ({few(sizes)})"
            raise UserError(
                f"dataset.folds={self.count}: {found}; expected as many folds as groups at most"
            )
        totals = [0] * self.count
        fold_of: dict[str, int] = {}
        for group in sorted(sizes, key=lambda group: (-sizes[group], self._digest(group))):
            fold_of[group] = totals.index(min(totals))
            totals[fold_of[group]] += sizes[group]
        return np.array([fold_of[group] for group in groups])

    def _groups(self, names: Sequence[str]) -> list[str]:
        if self.group_by is None:
            return list(names)
        matches = [re.search(self.group_by, name) for name in names]
        groups = [match[min(1, match.re.groups)] if match else None for match in matches]
        if None in groups:
            strays = [name for name, group in zip(names, groups, strict=True) if group is None]
            raise UserError(
                f"dataset.fold_by={self.group_by}: matches no part of {few(strays)}; expected a "
                "regular expression whose first group is in every name, such as ([^_]+)_ for the "
                "part before the first underscore"
            )
        return [group for group in groups if group is not None]

    def _digest(self, group: str) -> str:
        return hashlib.sha256(f"{self.seed}:{group}".encode()).hexdigest()
