"""The config of an existing run: a checkpoint's for eval, predict and export, or one to resume.

It is the config that the run was composed with, interpolations and all: what is interpolated from a
value that is overridden follows it. A group override replaces that group.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.cli.paths import quoted, value_of
from src.runs.directory import (
    RESOLVED_CONFIG,
    checkpoint_at,
    newest_checkpoint,
    run_directory_of,
)
from src.runs.summary import read_summary
from src.utils.errors import UserError, error_summary
from src.utils.files import write_text

log = logging.getLogger(__name__)

CHOICES = ("dataset", "model", "model/backbone", "device", "inference", "metrics")
GROUPS = tuple(group for group in CHOICES if "/" not in group)
OF_EVAL = ("metrics",)  # the other commands have no such group
DEFAULT_EXPERIMENTS_DIR = "experiments"


def with_choices_of_run(arguments: list[str], command: str) -> list[str]:
    """Completes a command line by `ckpt_path` and the group choices of the checkpoint's run.

    With the run's groups chosen before composition, each key that the run knew can be overridden.

    Raises:
        UserError: No checkpoint is given and there is no completed run; or the checkpoint stands
            alone and model or dataset are not given.
    """
    if _only_shows(arguments):
        return arguments
    given = _given(arguments)
    named = given.get("ckpt_path", "null")
    if named == "null":
        directory = given.get("paths.experiments_dir", DEFAULT_EXPERIMENTS_DIR)
        try:
            checkpoint = str(newest_checkpoint(directory))
        except UserError:
            if "--cfg" in arguments:  # to be shown without a run, too
                return arguments
            raise
    else:
        checkpoint = checkpoint_at(named)
    if checkpoint != named:
        arguments = [*arguments, f"ckpt_path={quoted(checkpoint)}"]
    run = run_directory_of(Path(checkpoint))
    if run is None:
        missing = [group for group in ("model", "dataset") if group not in given]
        if missing and "--cfg" not in arguments:
            if (
                Path(checkpoint).suffix
                and "://" not in checkpoint
                and not Path(checkpoint).exists()
            ):
                raise UserError(f"ckpt_path={checkpoint}: no such file")
            raise UserError(
                f"ckpt_path={checkpoint}: no run's config lies beside it; give "
                + " and ".join(f"{group}=…" for group in missing)
                + " too (as model=fcn8s dataset=voc2012)"
            )
        return arguments
    choices = _choices_of(run)
    chosen = [
        f"{group}={choices[group]}"
        for group in CHOICES
        if choices.get(group) is not None
        and group not in given
        and (command == "eval" or group not in OF_EVAL)
        and not (group == "model/backbone" and "model" in given)
    ]
    return [*chosen, *arguments]


def with_config_of_run(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """A config with the values of the checkpoint's run, and the command line's overrides on top."""
    run = run_directory_of(Path(str(cfg.ckpt_path)))
    if run is None:
        return cfg
    choices = _choices_of(run)
    saved = _config_of(run, choices)
    parsed = _parse(overrides)
    replaced = _replaced(parsed, choices)
    distributed = OmegaConf.select(cfg, "device.distributed")  # of this command, not of the run
    of_run = [key for key in (*GROUPS, "paths", "seed") if key in cfg and key in saved]
    cfg = cfg.copy()
    with open_dict(cfg):
        for key in of_run:
            if key not in replaced:
                cfg[key] = saved[key]
        if distributed is not None:
            cfg.device.distributed = distributed
        _apply(cfg, [o for o in parsed if o.key_or_group.partition(".")[0] in of_run], choices)
    log.info("config of the run %s", run)
    return cfg


@dataclass(frozen=True)
class ResumedRun:
    """A training run that `resume=DIR` continues, and the overrides of this command line."""

    path: Path
    overrides: list[str]

    @classmethod
    def of(cls, arguments: list[str]) -> "ResumedRun | None":
        """The run that a command line names; None if it names none.

        Raises:
            UserError: There is no run, nothing is left of it to do, or it cannot be gone on with.
        """
        named = _given(arguments).get("resume", "null")
        if named == "null" or _only_shows(arguments):
            return None
        if "-m" in arguments or "--multirun" in arguments:
            raise UserError(f"resume={named}: goes on with one run; leave out -m")
        overrides = [a for a in arguments if not a.startswith(("-", "resume="))]
        run = cls(Path(named), overrides)
        run._refuse_what_cannot_go_on()
        return run

    def arguments(self, arguments: list[str]) -> list[str]:
        """The command line, completed by the overrides the run was started and resumed with."""
        anew = {"output_dir", "resume", *map(_key, self.overrides)}
        choices = _choices_of(self.path)
        replaced = {_group(o) for o in self.overrides if _key(o) in choices}
        earlier = [
            override
            for file in _override_files(self.path)
            for override in OmegaConf.load(file)
            if _key(override) not in anew
            and _key(override).partition(".")[0] not in replaced
            and _group(override) not in replaced
        ]
        # a recipe of conf/sweep would start its sweep again
        return [*earlier, *arguments, f"output_dir={quoted(self.path)}", "hydra.mode=RUN"]

    def with_saved_config(self, cfg: DictConfig) -> DictConfig:
        """A config with the values of the run, and the overrides of this command line on top."""
        if not (self.path / RESOLVED_CONFIG).exists():
            return cfg  # killed before it was written: only the composed config is left
        choices = _choices_of(self.path)
        saved = _config_of(self.path, choices)
        parsed = _parse(self.overrides)
        replaced = _replaced(parsed, choices)
        cfg = cfg.copy()
        with open_dict(cfg):
            for key in saved:
                if key not in replaced and key not in ("output_dir", "resume"):
                    cfg[key] = saved[key]
            _apply(cfg, [o for o in parsed if o.key_or_group != "output_dir"], choices)
        return cfg

    def _refuse_what_cannot_go_on(self) -> None:
        named = f"resume={self.path}"
        summary = read_summary(self.path)
        if not (self.path / ".hydra" / "overrides.yaml").exists():
            raise UserError(
                f"{named}: no run to go on with (no .hydra/overrides.yaml); give the directory of "
                "a training run, as experiments/train/runs/TIME"
            )
        if summary.get("command", "train") != "train":
            raise UserError(f"{named}: is of the command {summary['command']}; only train resumes")
        for override in self.overrides:
            if _key(override) in ("experiment", "sweep", "debug"):
                raise UserError(
                    f"{named} {override}: a recipe cannot be laid over a run; give its keys"
                )
            if _key(override) == "output_dir" and Path(value_of(override)) != self.path:
                raise UserError(f"{named} {override}: a run goes on in its own directory")
        self._refuse_if_nothing_is_left(summary)
        checkpoints = self.path / "checkpoints"
        if (checkpoints / "last.ckpt").exists() and not list(checkpoints.glob("last_state*.npz")):
            raise UserError(
                f"{named}: holds weights but no state to go on from (checkpoints/last_state.npz); "
                f"start a new run with model.weights={checkpoints / 'last.ckpt'}"
            )

    def _refuse_if_nothing_is_left(self, summary: dict[str, Any]) -> None:
        if summary.get("status") != "completed":
            return
        done, reason = (summary["last"] or {}).get("epoch", 0), summary["reason"]
        given = {_key(override): value_of(override) for override in self.overrides}
        planned = given.get("trainer.max_epochs")
        if planned is None:
            planned = OmegaConf.load(self.path / RESOLVED_CONFIG).trainer.max_epochs
        loosened = any(key.startswith("callbacks") for key in given)
        if str(planned).isdigit() and int(planned) <= done:
            raise UserError(
                f"resume={self.path}: all {done} epochs are done, nothing is left to do; "
                f"trainer.max_epochs=N with N above {done} goes on"
            )
        if reason and not loosened:
            repair = "a larger callbacks.early_stopping.patience"
            if reason.startswith("pruned"):
                repair = "callbacks.pruning=null"
            raise UserError(
                f"resume={self.path}: stopped early ({reason}), nothing is left to do; "
                f"{repair} goes on"
            )


def _only_shows(arguments: list[str]) -> bool:
    shows = ("--help", "-h", "--hydra-help", "--info", "--shell-completion")
    return any(a in shows or a.startswith("-sc") for a in arguments)


def _given(arguments: list[str]) -> dict[str, str]:
    return {
        a.partition("=")[0]: value_of(a) for a in arguments if "=" in a and not a.startswith("-")
    }


def _choices_of(run: Path) -> DictConfig:
    """The options of the groups that a run was started with."""
    file = run / ".hydra" / "hydra.yaml"
    try:
        return OmegaConf.load(file).hydra.runtime.choices
    except PermissionError:
        raise
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{file}: cannot be read ({error_summary(error)}); copy a run with its .hydra"
        ) from error


def save_overrides(run: Path, overrides: Sequence[str]) -> None:
    """Writes the overrides of a resume beside those of the start."""
    path = run / ".hydra" / f"overrides.resume-{len(_override_files(run))}.yaml"
    write_text(path, OmegaConf.to_yaml(list(overrides)))


def _override_files(run: Path) -> list[Path]:
    """The override files of a run: of its start, and of each resume."""
    directory = run / ".hydra"
    resumes = len(list(directory.glob("overrides.resume-*.yaml")))
    names = ["overrides.yaml", *(f"overrides.resume-{i + 1}.yaml" for i in range(resumes))]
    return [directory / name for name in names]


def _config_of(run: Path, choices: DictConfig) -> DictConfig:
    """The config of a run with its interpolations; where it was resolved otherwise, the value.

    What building decides, such as class names and normalisation, is in the resolved config alone.
    """
    resolved = OmegaConf.load(run / RESOLVED_CONFIG)
    cfg = OmegaConf.load(run / ".hydra" / "config.yaml")
    for file in _override_files(run)[1:]:
        parsed = _parse(OmegaConf.to_object(OmegaConf.load(file)))
        _apply(cfg, parsed, choices)
        for group in _replaced(parsed, choices) & resolved.keys():
            cfg[group] = resolved[group]
    for key, value in _leaves(OmegaConf.to_container(resolved)):
        try:
            found = OmegaConf.select(cfg, key)
        except OmegaConfBaseException:  # an environment variable that is set no longer
            found = ...
        if (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) != value:
            OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


def _leaves(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config that are no dictionaries, by dotted key."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _parse(overrides: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides)


def _replaced(parsed: list[Override], choices: DictConfig) -> set[str]:
    """The groups of which another option is chosen."""
    return {
        o.key_or_group.partition("/")[0]
        for o in parsed
        if o.key_or_group in choices and o.value() != choices[o.key_or_group]
    }


def _apply(cfg: DictConfig, parsed: list[Override], choices: DictConfig) -> None:
    """Applies overrides of values; those of groups are left to composition."""
    for override in parsed:
        key = override.key_or_group
        if key in choices:
            continue
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            OmegaConf.select(cfg, parent).pop(name, None)
        else:
            OmegaConf.update(cfg, key, override.value(), force_add=True)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _group(override: str) -> str:
    """The first part of the key of a group override: `model` of `model/backbone=vgg16`."""
    return _key(override).partition("/")[0]
