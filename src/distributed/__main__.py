"""Starts a command in several processes of this machine: `python -m src.distributed 2 train …`.

The ranks find each other as under MindSpore's own launcher, msrun: by its environment variables and
a scheduler process. Beyond it, the screen is that of rank 0, whatever MindSpore writes goes to the
logs of the ranks, Ctrl-C saves, and a rank that dies ends the job at once.
"""

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from src.device.process_group import ROLE, RUN_FILE
from src.runs.summary import amend_summary
from src.utils.console import console
from src.utils.processes import end_with_parent

COMMANDS = ("train", "eval", "check_device")
PATIENCE = 5  # seconds that the others get to end by themselves after the first has failed


class Job:
    """The processes of one command.

    Args:
        size: Number of ranks.
        command: What each of them runs.
    """

    def __init__(self, size: int, command: list[str]) -> None:
        self.size = size
        self.command = command
        self.logs = Path(tempfile.mkdtemp(prefix="ranks-"))
        self.run_file = self.logs / "run_directory"
        self.processes: dict[int, subprocess.Popen] = {}

    def run(self) -> int:
        """Starts the processes and waits for them; returns the exit code of the job."""
        shared = {
            "MS_WORKER_NUM": str(self.size),
            "RANK_SIZE": str(self.size),
            "MS_SCHED_HOST": "127.0.0.1",
            "MS_SCHED_PORT": str(_free_port()),
            RUN_FILE: str(self.run_file),
        }
        scheduler = self._start("scheduler", {**shared, ROLE: "MS_SCHED"})
        for rank in range(self.size):
            place = {name: str(rank) for name in ("RANK_ID", "MS_NODE_ID", "DEVICE_ID")}
            environment = {**shared, **place, ROLE: "MS_WORKER"}
            self.processes[rank] = self._start(f"rank_{rank}", environment, screen=rank == 0)
        signals = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self._pass_on) for number in signals}
        try:
            return self._wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for process in (*self.processes.values(), scheduler):
                process.kill()
                process.wait()
            if not any(self.logs.glob("*.log")):  # they are in the run directory
                shutil.rmtree(self.logs)

    def _start(
        self, name: str, environment: dict[str, str], screen: bool = False
    ) -> subprocess.Popen:
        with open(self.logs / f"{name}.log", "w", encoding="utf-8") as log:
            return subprocess.Popen(
                self.command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=None if screen else log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us alone
                preexec_fn=functools.partial(end_with_parent, signal.SIGKILL, os.getpid()),
            )

    def _wait(self) -> int:
        """Waits until all processes have succeeded or one has failed."""
        while True:
            codes = {rank: process.poll() for rank, process in self.processes.items()}
            if all(code == 0 for code in codes.values()):
                self._keep_logs()
                return 0
            if ended := {rank: code for rank, code in codes.items() if code}:
                return self._end(*self._cause(ended))
            time.sleep(0.2)

    def _cause(self, ended: dict[int, int]) -> tuple[int, int]:
        """Rank and exit code of the failure: rank 0's if it is about to tell the same mistake."""
        deadline = time.monotonic() + PATIENCE
        while min(ended.values()) > 0 and 0 not in ended and time.monotonic() < deadline:
            if code := self.processes[0].poll():
                return 0, code
            time.sleep(0.2)
        return min(ended.items())

    def _end(self, rank: int, code: int) -> int:
        """Ends the other processes and says why, unless rank 0 has; returns the exit code."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        logs = self._keep_logs()
        if rank == 0 and code > 0:
            return code
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
        reason = f"rank {rank} {how}; its log: {logs[f'rank_{rank}.log']}"
        if self.run_file.exists():
            amend_summary(self._run_directory(), status="failed", reason=reason)
        console.print("error:", style="bold red", end=" ")
        console.print(reason, highlight=False, soft_wrap=True)
        return 1

    def _keep_logs(self) -> dict[str, Path]:
        """Moves the logs into the run directory, if there is one; returns where they are."""
        logs = {log.name: log for log in self.logs.glob("*.log")}
        if not self.run_file.exists():
            return logs
        target = self._run_directory() / "ranks"
        target.mkdir(exist_ok=True)
        earlier = len(list(target.glob("rank_0*.log")))  # of the run before it was resumed
        end = f".{earlier + 1}.log" if earlier else ".log"
        return {
            name: Path(shutil.move(log, target / f"{log.stem}{end}")) for name, log in logs.items()
        }

    def _run_directory(self) -> Path:
        return Path(self.run_file.read_text(encoding="utf-8"))

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.processes[0].send_signal(number)  # it saves and ends, and we end the others


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    """Reads the command line, runs the job, exits with its code."""
    arguments = sys.argv[1:]
    if len(arguments) < 2 or not arguments[0].isdigit() or arguments[1] not in COMMANDS:
        console.print("error:", style="bold red", end=" ")
        console.print(
            "expected python -m src.distributed RANKS COMMAND [overrides], COMMAND train, eval or "
            "check_device, as python -m src.distributed 2 train experiment=demo",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)
    size, name, *overrides = arguments
    command = [sys.executable, "-m", f"src.{name}", *overrides, "device.distributed=true"]
    sys.exit(Job(max(1, int(size)), command).run())


if __name__ == "__main__":
    main()
