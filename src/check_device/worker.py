"""A process that works on one device, and can crash or hang without affecting others."""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.check_device.check import NotSupported
from src.utils.console import setup_logging
from src.utils.errors import UserError, error_summary
from src.utils.processes import end_with_parent


@dataclass(frozen=True)
class Answer:
    """What a function returned in the worker's process, or why it did not return."""

    value: Any = None
    seconds: float | None = None
    error: str | None = None
    unsupported: str | None = None


class Worker:
    """Calls functions one after another in a process of its own.

    After an error the next function gets a new process: the device may be unusable in the old one.

    Args:
        cfg: Its keys `device` and `seed` say how the process is set up.
        log: All output of the process, including MindSpore's, is appended to this file.
        patience: Seconds that a function may take.
    """

    def __init__(self, cfg: DictConfig, log: Path, patience: float) -> None:
        self._cfg = OmegaConf.to_container(cfg, resolve=True)
        self._log = log
        self.patience = patience
        self._process: multiprocessing.process.BaseProcess | None = None
        self._deadline = 0.0

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(self, function: Callable[[], Any]) -> Answer:
        """Calls a module's function, or a `functools.partial` of one, and waits for its result."""
        self.start(function)
        return self.answer()

    def start(self, function: Callable[[], Any]) -> None:
        """Begins a call; its `answer` must be taken before the next one begins."""
        if self._process is None:
            self._start_process()
        self._deadline = time.monotonic() + self.patience
        with suppress(OSError):  # it has ended; nothing will be received then
            self._pipe.send(function)

    def answer(self) -> Answer:
        """Waits for the function's result.

        Raises:
            UserError: The device is not available.
        """
        answer = self._receive()
        if answer.error is not None:
            self._end()
        return answer

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(end, self._cfg, self._log), daemon=True
        )
        self._process.start()
        end.close()

    def _receive(self) -> Answer:
        if not self._pipe.poll(max(0, self._deadline - time.monotonic())):
            return Answer(error=f"it did not end within {self.patience:g} s (patience)")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            assert self._process is not None  # since `start`
            self._process.join()
            code = self._process.exitcode or 0
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            return Answer(error=f"its process ended {how}")
        if isinstance(answer, UserError):
            raise answer
        return answer

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Connection, cfg: dict[str, Any], log: Path) -> None:
    """The worker's process: sets the device up and calls what it is sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    end_with_parent(signal.SIGKILL)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    setup_logging(verbose=True)
    from src.cli import build  # imports MindSpore, whose lines belong in the file

    try:
        build.setup(OmegaConf.create(cfg))
    except UserError as error:
        pipe.send(error)
        return
    with suppress(EOFError):
        while True:
            pipe.send(_called(pipe.recv()))


def _called(function: Callable[[], Any]) -> Answer:
    started = time.perf_counter()
    try:
        value = function()
    except NotSupported as error:
        return Answer(unsupported=str(error))
    except Exception as error:
        traceback.print_exc()
        return Answer(error=f"{type(error).__name__}: {error_summary(error)}")
    return Answer(value, time.perf_counter() - started)
