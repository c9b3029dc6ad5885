"""Checks a composed config before data or devices are touched: unknown keys, types, ranges.

A key is known if the config composed without overrides has it, or if the `_target_` of its node
takes it. Ranges that many configs share stand in `src.cli.rules`; constructors check the rest.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.cli.combinations import check_combinations
from src.cli.rules import PLAIN, RULES, Rule
from src.utils.errors import UserError, error_summary, nearest

HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
# What src.cli.build takes out of a node before it instantiates it
TAKEN_OUT = {
    "dataset": {"mean", "std", "color_order"},
    "model": {"weights", "auxiliary_weight", "frozen", "frozen_norm"},
    "optimizer": {"parameters"},
}
# Nodes whose keys are names the user chooses
OPEN = {"callbacks", "logger", "metrics"}


def check(cfg: DictConfig, reference: DictConfig) -> None:
    """Refuses unknown keys and impossible values; whole numbers become floats where one is due.

    Args:
        cfg: The composed config, all overrides applied.
        reference: The same primary config composed without overrides.

    Raises:
        UserError: On the first key or value that cannot be.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    _check_keys("", plain, OmegaConf.to_container(reference, resolve=False))
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{key}: is not given and has no default; give {key}=…")
    for key, rule in RULES.items():
        value = _select(cfg, key)
        if value is _ABSENT:
            continue
        if not rule.allows(value):
            hint = nearest(value, rule.choices) if isinstance(value, str) else ""
            raise UserError(f"{key}={_show(value)}: expected {rule.describe()}{hint}")
        if rule.kind is float and isinstance(value, int):
            OmegaConf.update(cfg, key, float(value))  # MindSpore takes no whole number for one
    check_combinations(cfg)


_ABSENT = object()


def _select(cfg: DictConfig, key: str) -> Any:
    parent, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not isinstance(node, DictConfig) or name not in node:
            return _ABSENT
        value = node[name]
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {error_summary(error)}") from error
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_show, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _check_keys(path: str, node: dict, reference: Any) -> None:
    if "_target_" in node:
        _check_target(path, node)
    elif path not in OPEN and isinstance(reference, dict) and "_target_" not in reference:
        for key in node:
            if key not in reference:
                raise UserError(unknown_key(_join(path, key), reference))
    for key, child in node.items():
        if isinstance(child, dict):
            below = reference.get(key) if isinstance(reference, dict) else None
            _check_keys(_join(path, key), child, below)
        elif isinstance(child, list):
            for i, item in enumerate(child):
                if isinstance(item, dict) and "_target_" in item:
                    _check_keys(f"{_join(path, key)}.{i}", item, None)


def _check_target(path: str, node: dict) -> None:
    target = node["_target_"]
    try:
        callable_ = get_object(target)
    except Exception as error:  # Hydra raises several kinds
        line = f"{path}._target_={target}: cannot be imported ({error_summary(error)})"
        raise UserError(line) from error
    parameters = inspect.signature(_undecorated(callable_)).parameters
    extra = TAKEN_OUT.get(path, set())
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in node:
            if key not in parameters and key not in extra and key not in HYDRA_KEYS:
                known = [*parameters, *extra]
                raise UserError(unknown_key(_join(path, key), known, f" of {target}"))
    for key, value in node.items():
        if key in parameters:
            _check_annotation(_join(path, key), value, callable_, key)


def _undecorated(callable_: Callable) -> Callable:
    """The function behind a decorator that hides its parameters.

    MindSpore wraps the constructors of its optimizers into (*args, **kwargs) and hides the
    original in the closure.
    """
    function = callable_.__init__ if inspect.isclass(callable_) else callable_
    for cell in getattr(function, "__closure__", None) or ():
        inner = cell.cell_contents
        if inspect.isfunction(inner) and inner.__name__ == "__init__":
            return inner
    return callable_


def _check_annotation(path: str, value: Any, callable_: Callable, name: str) -> None:
    """Compares plain values with plain annotations (`int`, `Sequence[float] | None` …).

    Other annotations are skipped, and so are names of rules that give class factors where a list of
    these would do.
    """
    function = callable_.__init__ if inspect.isclass(callable_) else callable_
    try:
        hint = typing.get_type_hints(function).get(name)
    except Exception:  # foreign code with annotations that cannot be resolved
        return
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint)) if union else {hint}
    interpolated = "${" in str(value) or value == "???"
    listed = any(typing.get_origin(kind) is Sequence for kind in kinds)
    of_rule = name in ("class_weights", "alpha") and isinstance(value, str)
    if interpolated or (of_rule and listed):
        return
    nullable = types.NoneType in kinds
    rules = [_rule(kind, nullable) for kind in kinds - {types.NoneType}]
    refusing = [rule for rule in rules if rule is not None and not rule.allows(value)]
    if refusing and len(refusing) == len(rules):
        raise UserError(f"{path}={_show(value)}: expected {refusing[0].describe()}")


def _rule(hint: Any, nullable: bool) -> Rule | None:
    """The rule for a parameter of a plain type or a list of these; None for other types."""
    if hint in PLAIN:
        return Rule(hint, nullable=nullable)
    element = typing.get_args(hint)[:1]
    if typing.get_origin(hint) in (list, Sequence) and element and element[0] in PLAIN:
        return Rule(element[0], nullable=nullable, listed=True)
    return None


def unknown_key(key: str, known: typing.Iterable[str], of: str = "") -> str:
    """The error line for an unknown key."""
    parent, _, name = key.rpartition(".")
    known = sorted(map(str, known))
    hint = nearest(name, known) or f"; known here: {', '.join(known[:30])}"
    if hint.startswith("; did") and parent:
        hint = hint.replace("mean '", f"mean '{parent}.")
    return f"{key}: unknown key{of}{hint}"


def no_choice(argument: str, conf: Path) -> str:
    """The error line for `group=null` of a group that needs one of its options."""
    options = sorted(
        path.stem for path in (conf / argument.partition("=")[0].lstrip("+")).glob("*.yaml")
    )
    return f"{argument}: a group needs one of its options; there are {', '.join(options)}"


def explain_composition_error(error: Exception, compose: Callable[[list[str]], DictConfig]) -> str:
    """One line for Hydra's error about an override that it cannot apply.

    Args:
        error: Raised while composing.
        compose: Composes the same primary config with given overrides.
    """
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", text):
        return unknown_key(found[1], compose([]))
    if found := re.search(
        r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", text
    ):
        parts = found[1].split(".")
        known = compose([])
        for depth in reversed(range(1, len(parts))):
            node = OmegaConf.select(known, ".".join(parts[:depth]))
            if isinstance(node, DictConfig):
                return unknown_key(".".join(parts[: depth + 1]), node)
        return unknown_key(parts[0], known)
    if found := re.search(r"Could not find '([^']+)'", text):
        group, _, option = found[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, re.M)
        hint = nearest(option, options) or f"; there are {', '.join(options)}"
        return f"{group}={option}: no such option{hint}"
    return " ".join(text.split())


def all_keys(cfg: DictConfig) -> list[str]:
    """Every key of a config in dotted form."""
    keys: list[str] = []

    def walk(path: str, node: Any) -> None:
        for key, child in node.items():
            keys.append(_join(path, key))
            if isinstance(child, dict):
                walk(_join(path, key), child)

    walk("", OmegaConf.to_container(cfg, resolve=False))
    return keys


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)
