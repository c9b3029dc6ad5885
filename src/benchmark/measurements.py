"""The measurements; each returns a dict, as it stands in the JSON file."""

import importlib.util
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.benchmark.workers import Candidate, Result, paired_ratio, take_turns
from src.utils.errors import UserError
from src.utils.files import user_cache

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
HERE = "src.benchmark"
LAYOUTS = ("contiguous", "channels_last")  # of PyTorch's tensors
# With these, glibc's malloc keeps freed memory. By default, pages of PyTorch's tensors are cleared
# at every step, up to two fifths of its time; MindSpore has a memory pool.
KEEPING = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(256 << 20),
}

Measured = dict[str, Any]


def model(cfg: DictConfig) -> Measured:
    """Parameters, multiply-accumulates, memory traffic."""
    return _alone(Candidate(f"{HERE}.model.count"), cfg, 1).facts


def sgemm(cfg: DictConfig) -> Measured:
    """The rate of plain float32 matrix products, which plain convolutions cannot exceed."""
    result = _alone(Candidate(f"{HERE}.networks.sgemm"), cfg, cfg.steps)
    return {"gflops": result.facts["operations"] / min(result.seconds) / 1e9}


def bandwidth(cfg: DictConfig) -> Measured:
    """The rate at which memory is copied, which bounds depthwise convolutions and the like."""
    result = _alone(Candidate(f"{HERE}.networks.copying"), cfg, cfg.steps)
    return {"gigabytes_per_second": result.facts["bytes"] / min(result.seconds) / 1e9}


def network(name: str, cfg: DictConfig) -> Measured:
    """A training step or inference, beside PyTorch and the tutorial's way."""
    candidates = {"ours": Candidate(f"{HERE}.networks.{name}")}
    layout = _layout(name, cfg)
    if layout is not None:
        candidates["pytorch"] = _pytorch(name, layout)
        if cfg.device.target == "CPU":
            candidates["pytorch_keeping"] = replace(candidates["pytorch"], environment=KEEPING)
    results = take_turns(candidates, cfg, cfg.steps)
    # Last and alone, since it may take minutes; as installed, with all oneDNN's instruction sets
    tutorial = Candidate(
        f"{HERE}.tutorial.{name}",
        environment={"ONEDNN_MAX_CPU_ISA": "ALL"},
        patience=cfg.patience,
    )
    return _summarized(results | take_turns({"tutorial": tutorial}, cfg, 1))


def data(cfg: DictConfig) -> Measured:
    """An epoch of training input on one thread, beside the tutorial's; and ours on two."""
    one = {"dataset.num_workers": 1}
    candidates = {
        "ours": Candidate(f"{HERE}.pipeline.data", one),
        "tutorial": Candidate(f"{HERE}.tutorial.data", one),
        "two_workers": Candidate(f"{HERE}.pipeline.data", {"dataset.num_workers": 2}),
    }
    return _summarized(take_turns(candidates, cfg, cfg.steps))


def evaluation(cfg: DictConfig) -> Measured:
    """All of an evaluation but the network, beside the tutorial's four metrics alone."""
    candidates = {
        "ours": Candidate(f"{HERE}.pipeline.evaluation"),
        "tutorial": Candidate(f"{HERE}.tutorial.evaluation"),
    }
    return _summarized(take_turns(candidates, cfg, cfg.steps))


def trainer_overhead(cfg: DictConfig) -> Measured:
    """`Trainer.fit` beside `mindspore.train.Model.train`, a step of a small network.

    For the ratio, both get the same time for the step itself, which is the same graph: it varies by
    a tenth from run to run, ten times the trainer's overhead.
    """
    candidates = {name: Candidate(f"{HERE}.overhead.{name}") for name in ("trainer", "bare")}
    results = take_turns(candidates, cfg, cfg.steps)
    summary = _summarized({"ours": results["trainer"], "bare": results["bare"]})
    if all(result.seconds for result in results.values()):
        step = min(result.facts["step_seconds"] for result in results.values())
        ours, bare = (step + result.facts["beside_seconds"] for result in results.values())
        summary["bare"]["ratio"] = ours / bare
    return summary


def first_step(cfg: DictConfig) -> Measured:
    """How much longer the first training step takes than later ones: compiled, and from cache."""
    from src.device.compile_cache import GRAPHS  # imports MindSpore

    cache = user_cache()
    with tempfile.TemporaryDirectory() as folder:
        mirror = Path(folder) / cache.name  # other cached files, such as kernels, stay in use
        mirror.mkdir()
        for path in cache.glob("*"):
            if path.name != GRAPHS:
                (mirror / path.name).symlink_to(path)
        environment = {"XDG_CACHE_HOME": folder}
        step = Candidate(f"{HERE}.networks.cached_train_step", environment=environment)
        found = {}
        for name in ("ours", "kept_graph"):
            (result,) = take_turns({name: step}, cfg, cfg.steps).values()
            if result.seconds:
                longer = result.first_seconds - result.median
                result = replace(result, seconds=[longer], images=None)
            found[name] = result
    return _summarized(found)


def startup(cfg: DictConfig) -> Measured:
    """`python -m src.train --cfg job`, a process from start to end."""
    seconds = []
    for _ in range(max(3, cfg.steps) + 1):
        started = time.perf_counter()
        command = [sys.executable, "-m", "src.train", "--cfg", "job"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return _summarized({"ours": Result(seconds=seconds[1:], first_seconds=seconds[0])})


def _summarized(results: dict[str, Result]) -> Measured:
    """Our result, and each rival's by name with the ratio ours / theirs."""
    ours = results["ours"]
    summary = ours.as_dict()
    for name, result in results.items():
        if name != "ours":
            summary[name] = result.as_dict()
            summary[name]["ratio"] = paired_ratio(ours, result)
    return summary


def _alone(candidate: Candidate, cfg: DictConfig, rounds: int) -> Result:
    (result,) = take_turns({"it": candidate}, cfg, rounds).values()
    if not result.seconds:
        raise RuntimeError(f"{candidate.target}: {result.error}")
    return result


def _pytorch(name: str, layout: str) -> Candidate:
    return Candidate(f"{HERE}.pytorch.{name}", {"layout": layout})


def _layout(name: str, cfg: DictConfig) -> str | None:
    """The layout in which PyTorch is faster; None where it does not run."""
    if importlib.util.find_spec("torch") is None:
        log.info("torch is not installed: no comparison with PyTorch (pip install torch)")
        return None
    fastest: dict[str, float] = {}
    for layout in LAYOUTS:
        try:
            (result,) = take_turns({layout: _pytorch(name, layout)}, cfg, 1).values()
        except UserError as error:
            log.info("no comparison with PyTorch: %s", error)
            return None
        if not result.seconds:
            log.info("no comparison with PyTorch: %s", result.error)
            return None
        fastest[layout] = min(result.seconds)
    return min(fastest, key=fastest.get)
