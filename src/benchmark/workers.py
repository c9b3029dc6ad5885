"""Candidates in processes of their own, which take turns."""

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from src.utils.errors import UserError, error_summary
from src.utils.processes import end_with_parent

WARM_UP_SECONDS, WARM_UP_RUNS = 8.0, 3  # one run at least; the first compiles


@dataclass
class Work:
    """What a candidate does.

    Attributes:
        run: Does it once. It may return the seconds that count; None is the time it took.
        images: Images in one run.
        facts: Other results, such as the number of parameters; `run` may add to it.
        peak_mb: The device's largest memory so far; None takes the process's.
    """

    run: Callable[[], float | None]
    images: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    peak_mb: Callable[[], float] | None = None


@dataclass(frozen=True)
class Candidate:
    """A function config → `Work`, by its dotted name, and the process it is called in.

    Attributes:
        target: The function.
        overrides: Values of the config, by dotted key.
        environment: Variables of the process.
        patience: Seconds until the first run must be over; None waits.
        warm_up: Repeats the first run before any other is timed.
    """

    target: str
    overrides: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    patience: float | None = None
    warm_up: bool = True


@dataclass(frozen=True)
class Result:
    """The times of a candidate. Without `seconds` there is an `error`, or it exceeded `beyond`."""

    seconds: list[float] = field(default_factory=list)
    first_seconds: float | None = None  # compilation and the first run
    images: int | None = None  # in one run; None if it has none
    peak_mb: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    beyond: float | None = None

    @property
    def median(self) -> float | None:
        """The median run, in seconds."""
        return statistics.median(self.seconds) if self.seconds else None

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        if not self.seconds:
            return {"error": self.error} if self.error else {"beyond_seconds": self.beyond}
        return {
            "seconds": self.median,
            "fastest": min(self.seconds),
            "slowest": max(self.seconds),
            "runs": len(self.seconds),
            "first_seconds": self.first_seconds,
            "images_per_second": self.images / self.median if self.images else None,
            "peak_mb": self.peak_mb,
            **self.facts,
        }


def take_turns(candidates: dict[str, Candidate], cfg: DictConfig, rounds: int) -> dict[str, Result]:
    """Sets up all candidates, runs each once a round, and returns their times.

    Raises:
        UserError: Of a candidate.
    """
    processes = {name: _CandidateProcess(candidate, cfg) for name, candidate in candidates.items()}
    try:
        for process in processes.values():
            process.start()
        for round_ in range(rounds):
            order = list(processes.values())
            for process in order if round_ % 2 == 0 else reversed(order):
                process.run()
        return {name: process.finish() for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.stop()


def paired_ratio(ours: Result, theirs: Result) -> float | None:
    """The median over the rounds they ran side by side of ours / theirs; else of the medians."""
    if not ours.seconds or not theirs.seconds:
        return None
    if len(ours.seconds) != len(theirs.seconds):
        return ours.median / theirs.median
    return statistics.median(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True))


class _CandidateProcess:
    def __init__(self, candidate: Candidate, cfg: DictConfig) -> None:
        self._candidate = candidate
        self._cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
        for key, value in candidate.overrides.items():
            OmegaConf.update(self._cfg, key, value)
        self._seconds: list[float] = []
        self._first: dict[str, Any] = {}
        self._lost: Result | None = None
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        candidate = self._candidate
        config = OmegaConf.to_container(self._cfg)
        arguments = (end, candidate.target, config, candidate.warm_up)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        variables = {"GLOG_v": "3", **os.environ, **self._candidate.environment}
        before = os.environ.copy()
        os.environ.update(variables)  # a spawned process takes the environment as it is now
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        end.close()
        self._first = self._receive(self._candidate.patience) or {}
        self._halt()

    def run(self) -> None:
        if self._lost is None:
            self._ask(again=True)
            answer = self._receive()
            if answer is not None:
                self._seconds.append(answer["seconds"])
                self._halt()

    def finish(self) -> Result:
        if self._lost is None:
            self._ask(again=False)
            last = self._receive()
            if last is not None:
                return Result(seconds=self._seconds, **self._first, **last)
        return self._lost

    def stop(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _halt(self) -> None:
        """Stops the process until it is asked again: MindSpore's threads spin while they wait."""
        if self._lost is None:
            os.kill(self._process.pid, signal.SIGSTOP)

    def _ask(self, again: bool) -> None:
        os.kill(self._process.pid, signal.SIGCONT)
        with suppress(OSError):  # it has died: there is nothing to be received then
            self._pipe.send(again)

    def _receive(self, patience: float | None = None) -> dict[str, Any] | None:
        answer: dict[str, Any] = {"error": "its process ended without an error message"}
        if not self._pipe.poll(patience):
            self._lost = Result(beyond=patience)
            self.stop()
            return None
        with suppress(EOFError, OSError):
            answer = self._pipe.recv()
        if "mistake" in answer:
            raise UserError(answer["mistake"])
        if "error" in answer:
            self._lost = Result(error=answer["error"])
            return None
        return answer


def _serve(pipe: Connection, target: str, cfg: dict[str, Any], warm_up: bool) -> None:
    """The candidate's process: sets up, warms up, and runs as often as it is asked to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    end_with_parent(signal.SIGKILL)  # a stopped process would not notice that
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # progress bars and logs of the measured code
        os.dup2(nowhere, stream)
    try:
        work = get_object(target)(OmegaConf.create(cfg))
        started = time.perf_counter()
        first, runs = _timed(work), 1
        most = WARM_UP_RUNS if warm_up else 1
        while time.perf_counter() - started < WARM_UP_SECONDS and runs < most:
            _timed(work)
            runs += 1
        pipe.send({"first_seconds": first, "images": work.images})
        while pipe.recv():
            pipe.send({"seconds": _timed(work)})
        peak = work.peak_mb() if work.peak_mb else process_peak_mb()
        pipe.send({"peak_mb": peak, "facts": work.facts})
    except UserError as error:
        pipe.send({"mistake": str(error)})
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error_summary(error)}"})


def _timed(work: Work) -> float:
    started = time.perf_counter()
    counted = work.run()
    return time.perf_counter() - started if counted is None else counted


def process_peak_mb() -> float:
    """The largest resident memory of this process so far."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
