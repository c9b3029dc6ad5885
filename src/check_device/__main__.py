"""Checks what a device computes: `python -m src.check_device device=ascend [only=layers]`."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig, OmegaConf

from src.check_device.software import software
from src.cli.command import command, save_resolved
from src.device.process_group import this_process
from src.runs.directory import RunDirectory
from src.utils.console import console, progress
from src.utils.errors import UserError, nearest
from src.utils.files import write_json

if TYPE_CHECKING:
    from src.check_device.check import Result

log = logging.getLogger("src.check_device")  # __name__ is __main__ here


@command("check_device")
def check_device(cfg: DictConfig, run: RunDirectory) -> None:
    """Checks what `only` names, prints the table, writes the JSON file; fails where a check did."""
    from src.check_device import catalogue, collectives, runner  # imports MindSpore
    from src.check_device.table import table

    alone = this_process().world_size == 1
    source = catalogue if alone else collectives
    groups = _groups(cfg.only, source.GROUPS)
    save_resolved(cfg, run)
    run.update(device=cfg.device.target)
    checks = [check for check in source.checks(cfg.device.target) if check.group in groups]
    carry_out = (
        functools.partial(runner.run_alone, folder=run.path) if alone else runner.run_together
    )
    results: list[Result] = []
    try:
        with progress() as bar:
            task = bar.add_task("checking", total=len(checks) + 1)
            for result in carry_out(checks, cfg):
                log.debug("%s", result)
                results.append(result)
                bar.advance(task)
    finally:
        if run.is_main_process:  # also if the device is not available
            file = _write(results, cfg, run.path)
    if run.is_main_process:
        console.print(table(_title(cfg), results))
        _conclude(results, file)


def _title(cfg: DictConfig) -> str:
    target, world_size = cfg.device.target, this_process().world_size
    if world_size > 1:
        return f"{target}, {world_size} processes"
    return target if target == "CPU" else f"{target}, card {cfg.device.id}"


def _write(results: Sequence["Result"], cfg: DictConfig, folder: Path) -> Path:
    """Writes the JSON file into the run's directory, and to `output` if that is given."""
    content = {
        "device": OmegaConf.to_container(cfg.device),
        "checks": [result.as_dict() for result in results],
        **software(),
    }
    paths = [folder / "check_device.json", *([Path(cfg.output)] if cfg.output else [])]
    for path in paths:
        write_json(path, content)
    return paths[-1]


def _conclude(results: Sequence["Result"], file: Path) -> None:
    """Logs what failed; the command then fails, too."""
    failed = [result for result in results if result.failed]
    for result in failed:
        log.error("%s: %s", result.name, result.error or "differs by more than is allowed")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(results)} checks failed; to report a bug, attach {file} and "
            "the logs of this run"
        )
    log.info("all checks passed; the numbers: %s", file)


def _groups(only: str | ListConfig | None, known: Sequence[str]) -> Sequence[str]:
    """The groups of checks that `only` names."""
    chosen = known if only is None else list(only) if isinstance(only, ListConfig) else [only]
    for name in chosen:
        if name not in known:
            hint = nearest(str(name), known) or f"; there are {', '.join(known)}"
            raise UserError(f"only={name}: no such group of checks{hint}")
    return chosen


if __name__ == "__main__":
    check_device()
