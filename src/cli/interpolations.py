"""Which values of a run's config follow when another of its values is changed."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def followers(cfg: DictConfig, resolved: DictConfig, changed: Iterable[str]) -> dict[str, str]:
    """The interpolations, by dotted key, that give another value when `changed` keys do.

    Args:
        cfg: A composed config, not resolved.
        resolved: The run's values. Where they are not what the interpolation gives, they were
            chosen by hand, and stay.
        changed: Dotted keys. They do not follow each other.
    """
    changed = set(changed)
    leaves = dict(_leaves(OmegaConf.to_container(cfg, resolve=False)))
    found: dict[str, str] = {}
    while True:
        more = {
            key: text
            for key, text in leaves.items()
            if key not in found.keys() | changed
            and any(f"${{{name}}}" in text for name in changed | found.keys())
            and _gives(text, key, resolved)
        }
        if not more:
            return found
        found |= more


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a config, with their dotted keys; lists are passed over."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        elif isinstance(value, str):
            yield f"{path}{key}", value


def _gives(text: str, key: str, resolved: DictConfig) -> bool:
    """Whether an interpolation gives the value that a run has."""
    value = OmegaConf.select(resolved, key)
    trial = copy.deepcopy(resolved)
    try:
        OmegaConf.update(trial, key, text, force_add=True)
        return OmegaConf.select(trial, key) == value
    except OmegaConfBaseException:
        return False
