"""Paths on the command line: taken as the shell passes them, whatever Hydra's grammar says."""

import os
import re
import shlex
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from src.cli.schema import all_keys
from src.utils.errors import UserError

_PATH_KEY = re.compile(  # and a regular expression, which is as foreign to Hydra's grammar
    r"(.*[._])?(dir|file|folder|path|root)|input|output|resume(_sweep)?|model\.weights"
    r"|dataset\.fold_by"
)

OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)  # for conf/hydra


def quote_paths(arguments: list[str]) -> list[str]:
    """Quotes the values of path keys for Hydra where it would read them as something else.

    Blanks, brackets, `#`, `=`, commas, apostrophes and letters of any script are then part of the
    path, and `~` is the home directory. What is quoted already, null, interpolations and, in a
    sweep, several values stay as they are.

    Raises:
        UserError: Another key's value is outside of Hydra's grammar; the line shows it quoted.
    """
    sweeps = is_sweep(arguments)
    return [_quote_path(a, sweeps) if _is_override(a) else a for a in arguments]


def quoted(path: str | Path) -> str:
    """A path as a quoted string of Hydra's grammar."""
    return QuotedString(str(path), Quote.single).with_quotes()


def value_of(override: str) -> str:
    """The text that an override gives its key, without the quotes of Hydra's grammar."""
    text = override.partition("=")[2]
    try:
        value = _parse(override).value()
    except HydraException:
        return text
    return value if isinstance(value, str) else text


def is_sweep(arguments: list[str]) -> bool:
    """Whether a command line asks for several runs."""
    recipe = any(a.startswith(("sweep=", "+sweep=")) and value_of(a) != "null" for a in arguments)
    asked = recipe or not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(arguments)
    return asked and "hydra.mode=RUN" not in arguments


def expand_home(cfg: DictConfig) -> None:
    """Replaces `~` at the beginning of the paths in a config by the home directory.

    Raises:
        UserError: There is no such home directory.
    """
    for key in filter(_PATH_KEY.fullmatch, all_keys(cfg)):
        parent, _, name = key.rpartition(".")
        value = OmegaConf.to_container(OmegaConf.select(cfg, parent) if parent else cfg).get(name)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(cfg, key, _expand_home(key, value))


def _parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def _expand_home(key: str, path: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UserError(f"{key}={path}: there is no such home directory; give the whole path")
    return expanded


def _is_override(argument: str) -> bool:
    return "=" in argument and not argument.startswith("-")


def _quote_path(argument: str, sweeps: bool) -> str:
    left, _, text = argument.partition("=")
    key = left.lstrip("+~")
    is_path = _PATH_KEY.fullmatch(key)
    if is_path:
        text = _expand_home(key, text)
    try:
        override = _parse(f"{left}={text}")
    except HydraException as error:
        if is_path:
            return f"{left}={quoted(text)}"
        raise UserError(_how_to_quote(left, text)) from error
    if not is_path:
        return argument
    if override.is_sweep_override():
        meant = sweeps and not key.startswith("hydra.") and not Path(text).exists()
    else:
        value = override.value()
        meant = value is None or value == text or (isinstance(value, str) and text[0] in "'\"")
    return f"{left}={text if meant else quoted(text)}"


def _how_to_quote(left: str, text: str) -> str:
    if text.startswith(("[", "{")):
        return (
            f"{left}={text}: cannot be read as a list or mapping; close its brackets, and put "
            "texts of other than plain letters into quotes, as 'tags=[\"a#1\",b]'"
        )
    repair = shlex.quote(f"{left}={QuotedString(text, Quote.double).with_quotes()}")
    return f"{left}={text}: cannot be read; if it is a text, give it in quotes: {repair}"
