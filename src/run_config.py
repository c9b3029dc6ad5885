"""The config of the run that a checkpoint comes from, for eval, predict and export.

Value overrides apply on top of it; a group override replaces that group.
"""

import logging
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from src.engine.rundir import RESOLVED_CONFIG, newest_checkpoint, run_directory_of
from src.utils.errors import UserError

log = logging.getLogger(__name__)

GROUPS = ("dataset", "model", "device", "inference")
CHOICES = (*GROUPS, "model/backbone")
DEFAULT_EXPERIMENTS_DIR = "experiments"


def with_choices_of_run(arguments: list[str]) -> list[str]:
    """Completes a command line by `ckpt_path` and the group choices of the checkpoint's run.

    With the run's groups chosen before composition, each key that the run knew can be overridden.

    Raises:
        UserError: No checkpoint is given and there is no completed run; or the checkpoint stands
            alone and model or dataset are not given.
    """
    if any(
        a in ("--help", "-h", "--hydra-help", "--info", "--shell-completion") or a.startswith("-sc")
        for a in arguments
    ):
        return arguments
    given = dict(a.split("=", 1) for a in arguments if "=" in a and not a.startswith("-"))
    if given.get("ckpt_path", "null") == "null":
        directory = given.get("paths.experiments_dir", DEFAULT_EXPERIMENTS_DIR)
        given["ckpt_path"] = str(newest_checkpoint(directory))
        arguments = [*arguments, f"ckpt_path={given['ckpt_path']}"]
    run = run_directory_of(Path(given["ckpt_path"]))
    if run is None:
        missing = [group for group in ("model", "dataset") if group not in given]
        if missing and "--cfg" not in arguments:
            raise UserError(
                f"ckpt_path={given['ckpt_path']}: no run's config lies beside it; give "
                + " and ".join(f"{group}=…" for group in missing)
                + " too (as model=fcn8s dataset=voc2012)"
            )
        return arguments
    hydra_cfg = OmegaConf.load(run / ".hydra" / "hydra.yaml")
    choices = hydra_cfg.hydra.runtime.choices
    chosen = [
        f"{group}={choices[group]}"
        for group in CHOICES
        if choices.get(group) is not None
        and group not in given
        and not (group == "model/backbone" and "model" in given)
    ]
    return [*chosen, *arguments]


def apply_run(cfg: DictConfig, overrides: list[str]) -> None:
    """Puts the resolved values of the checkpoint's run under the overrides of the command line."""
    run = run_directory_of(Path(str(cfg.ckpt_path)))
    if run is None:
        return
    resolved = OmegaConf.load(run / RESOLVED_CONFIG)
    hydra_cfg = OmegaConf.load(run / ".hydra" / "hydra.yaml")
    choices = hydra_cfg.hydra.runtime.choices
    parsed = OverridesParser.create().parse_overrides(overrides)
    replaced = {
        o.key_or_group.partition("/")[0]
        for o in parsed
        if o.key_or_group in CHOICES and o.value() != choices.get(o.key_or_group)
    }
    with open_dict(cfg):
        for group in GROUPS:
            if group not in replaced and group in resolved:
                cfg[group] = resolved[group]
        for override in parsed:
            group = override.key_or_group.partition(".")[0]
            if group in GROUPS and "." in override.key_or_group and not override.is_delete():
                OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
    log.info("config of the run %s", run)
