"""Measures speed and memory: `python -m src.benchmark [only=train_step] [steps=N]`."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from src.benchmark import measurements
from src.benchmark.tables import show
from src.cli.command import command, save_resolved
from src.runs.directory import RunDirectory
from src.utils.errors import UserError, nearest
from src.utils.files import write_json
from src.utils.versions import version, versions

log = logging.getLogger("src.benchmark")  # __name__ is __main__ here

NETWORK = ("train_step", "inference", "inference_batch1")
OTHERS = ("first_step", "data", "evaluation", "trainer_overhead", "startup")
NAMES = ("model", *NETWORK, *OTHERS)


@command("benchmark")
def benchmark(cfg: DictConfig, run: RunDirectory) -> None:
    """Measures what `only` names, prints the tables, writes the JSON file."""
    names = chosen_names(cfg.only)
    if cfg.dataset.crop_size is None:
        raise UserError("dataset.crop_size=null: steps are measured at one size; give [H,W]")
    save_resolved(cfg, run)
    run.update(device=cfg.device.target)
    found: dict[str, Any] = {}
    if {"model", *NETWORK} & set(names):
        found["model"] = measurements.model(cfg)
    if {*NETWORK} & set(names):
        found["sgemm"] = measurements.sgemm(cfg)
        found["bandwidth"] = measurements.bandwidth(cfg)
    for name in names:
        if name == "model":
            continue
        log.info("measuring %s", name)
        if name in NETWORK:
            found[name] = measurements.network(name, cfg)
            _add_shares(found[name], found, training=name == "train_step")
        else:
            found[name] = getattr(measurements, name)(cfg)
    show(found, cfg)
    result = {**found, "versions": {**versions(), "torch": version("torch")}}
    paths = [run.path / "benchmark.json", *([Path(cfg.output)] if cfg.output else [])]
    for path in paths:
        write_json(path, result)
    log.info("the numbers: %s", paths[-1])


def chosen_names(only: Any) -> list[str]:
    """The names of the measurements that `only` chooses, in their fixed order."""
    chosen = NAMES if only is None else list(only) if isinstance(only, ListConfig) else [only]
    for name in chosen:
        if name not in NAMES:
            hint = nearest(str(name), NAMES) or f"; there are {', '.join(NAMES)}"
            raise UserError(f"only={name}: no such measurement{hint}")
    return [name for name in NAMES if name in chosen]


def _add_shares(measured: dict[str, Any], found: dict[str, Any], training: bool) -> None:
    """Adds the shares of the SGEMM rate and of memory bandwidth that direct convolutions would use.

    Winograd's need a quarter of the multiplications, so the share may exceed one. Maps are counted
    as read and written once by each layer.
    """

    def per_second(what: str) -> float:
        amount = found["model"][what]
        if training:  # the gradients of the weights and, but for the first layer, of the input
            amount = 3 * amount - found["model"][f"first_{what}"]
        return amount * measured["images_per_second"]

    measured["sgemm_share"] = 2e-9 * per_second("macs") / found["sgemm"]["gflops"]
    rate = found["bandwidth"]["gigabytes_per_second"]
    measured["bandwidth_share"] = 1e-9 * per_second("bytes") / rate


if __name__ == "__main__":
    benchmark()
