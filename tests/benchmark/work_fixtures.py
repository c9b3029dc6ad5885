"""Candidates that take known times; imported by their processes."""

import os
import threading
import time

from omegaconf import DictConfig

from src.benchmark.workers import Work
from src.utils.errors import UserError


def counted(cfg: DictConfig) -> Work:
    """The n-th run takes `cfg.each` · n seconds, as it says itself."""
    runs = []

    def run() -> float:
        runs.append(None)
        return cfg.each * len(runs)

    return Work(run, images=4, facts={"seed": cfg.seed})


def asleep(cfg: DictConfig) -> Work:
    return Work(lambda: time.sleep(60))


def failing(cfg: DictConfig) -> Work:
    raise ZeroDivisionError("by zero\nand more")


def mistaken(cfg: DictConfig) -> Work:
    raise UserError("each=0: expected more")


def dying(cfg: DictConfig) -> Work:
    runs = []

    def run() -> float:
        runs.append(None)
        if len(runs) > 3:  # after the warm-up, as where memory runs out
            os._exit(9)
        return 1.0

    return Work(run)


def spinning(cfg: DictConfig) -> Work:
    """Runs for a second, and has a thread that spins; tells what it spent between its runs."""
    threading.Thread(target=_spin, daemon=True).start()
    facts, spent = {}, [None]

    def run() -> float:
        now = time.process_time()
        if spent[0] is not None:
            facts["seconds_between_runs"] = now - spent[0]
        time.sleep(1)
        spent[0] = time.process_time()
        return 1.0

    return Work(run, facts=facts)


def _spin() -> None:
    while True:
        pass
