"""Carries checks out: in workers, or in this process as one of several."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.check_device.check import Check, NotSupported, Result, judge
from src.check_device.software import run_check
from src.check_device.worker import Answer, Worker
from src.cli import build
from src.device.process_group import this_process
from src.utils.console import console

REFERENCE = {"target": "CPU", "id": 0, "mode": "pynative", "jit_level": None}


def run_alone(checks: Sequence[Check], cfg: DictConfig, folder: Path) -> Iterator[Result]:
    """Carries checks out in a process on the device, beside one on the CPU; both log to `folder`.

    Raises:
        UserError: The device is not available.
    """
    on_cpu = OmegaConf.merge(cfg, {"device": REFERENCE})
    with (
        Worker(cfg, folder / "device.log", cfg.patience) as device,
        Worker(on_cpu, folder / "cpu.log", cfg.patience) as reference,
    ):
        yield _installation(device.call(run_check))
        for check in checks:
            yield _compared(check, device, reference)


def run_together(checks: Sequence[Check], cfg: DictConfig) -> Iterator[Result]:
    """Carries checks out in this process and all others of its group; an error ends them all.

    Each result is that of the process with the largest difference.
    """
    build.setup(cfg)
    started = time.perf_counter()
    yield _installation(Answer(run_check(), time.perf_counter() - started))
    for check in checks:
        started = time.perf_counter()
        try:
            found = check.run()
        except NotSupported as reason:
            yield check.result(unsupported=str(reason))
            continue
        result = judge(check, found, None, time.perf_counter() - started)
        everywhere = this_process().gather([result.difference, result.error])
        difference, error = max(everywhere, key=lambda pair: math.inf if pair[1] else pair[0])
        yield replace(result, difference=difference, error=error)


def _installation(answer: Answer) -> Result:
    """Prints what `mindspore.run_check()` said."""
    if this_process().is_main_process:
        console.print(answer.error or answer.value, markup=False, highlight=False)
    difference = None if answer.error else 0.0
    name = "mindspore.run_check()"
    return Result("installation", name, "itself", 0.0, answer.seconds, difference, answer.error)


def _compared(check: Check, device: Worker, reference: Worker) -> Result:
    device.start(check.run)
    if check.expected is not None:  # at the same time: MindSpore's threads spin while they wait
        reference.start(check.expected)
    found = device.answer()
    right = reference.answer() if check.expected is not None else Answer()
    if found.value is None:
        return check.result(error=found.error, unsupported=found.unsupported)
    if right.error is not None:
        return check.result(seconds=found.seconds, error=f"on the CPU: {right.error}")
    return judge(check, found.value, right.value, found.seconds)
