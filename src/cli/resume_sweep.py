"""`resume_sweep=DIR`: the command line of a sweep that was cut off."""

from pathlib import Path
from typing import Any

import yaml

from src.cli.paths import quoted, value_of
from src.sweeps.jobs import SWEEP_CONFIG
from src.utils.errors import UserError

# What may be other than at the start: how the jobs are run, not what they are
_FREE = ("resume_sweep", "on_error", "hydra.sweeper.n_trials")
_FREE_GROUPS = ("hydra/launcher", "hydra.launcher.")


def with_resumed_sweep(arguments: list[str]) -> list[str]:
    """Completes a command line by the overrides that the sweep of `resume_sweep` was started with.

    Raises:
        UserError: There is no sweep, or this command line would change its jobs.
    """
    named = [a for a in arguments if a.startswith("resume_sweep=")]
    if not named or named[-1] == "resume_sweep=null":
        return arguments
    path = Path(value_of(named[-1]))
    given = [a for a in arguments if not a.startswith("-")]
    for argument in given:
        key = argument.partition("=")[0].lstrip("+~")
        if key not in _FREE and not key.startswith(_FREE_GROUPS):
            raise UserError(
                f"{named[-1]} {argument}: a sweep goes on with its own jobs; only "
                "hydra.launcher.*, hydra.sweeper.n_trials and on_error can be changed"
            )
    keys = {argument.partition("=")[0] for argument in given}
    gone = ("hydra.launcher.",) if "hydra/launcher" in keys else ()  # settings of another one
    earlier = [
        o for o in _overrides(path) if o.partition("=")[0] not in keys and not o.startswith(gone)
    ]
    rest = [a for a in arguments if a not in ("-m", "--multirun")]
    return ["-m", *earlier, *rest, f"hydra.sweep.dir={quoted(path)}"]


def _overrides(path: Path) -> list[str]:
    try:
        config = yaml.safe_load((path / SWEEP_CONFIG).read_text(encoding="utf-8"))
        overrides: dict[str, Any] = config["hydra"]["overrides"]
        return [
            override
            for override in [*overrides["hydra"], *overrides["task"]]
            if override.partition("=")[0] not in ("hydra.sweep.dir", "hydra.mode")
        ]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(
            f"resume_sweep={path}: no sweep to go on with (no readable {SWEEP_CONFIG}); give the "
            "directory of a sweep, as experiments/train/multiruns/TIME"
        ) from error
