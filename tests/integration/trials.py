"""Runs that are cut off at some moment and gone on with, for the tests and for `make soak`."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds for anything a command does


class Trial:
    """A training run of a tiny network, in a directory of its own.

    Args:
        run: The run's directory.
        data: A dataset in VOC's layout.
        options: Overrides beside those of all trials.
        ranks: Processes that train together; 0 is a process alone.
    """

    def __init__(self, run: Path, data: Path, *options: str, ranks: int = 0) -> None:
        self.run = run
        self.screen = run.with_name(f"{run.name}.txt")
        module = ["src.distributed", str(ranks), "train"] if ranks else ["src.train"]
        self.command = [sys.executable, "-m", *module]
        self.options = [
            "dataset=folder",
            f"dataset.root={data}",
            "dataset.crop_size=[64,64]",
            "dataset.batch_size=2",
            "model/backbone=compact",
            "trainer.max_epochs=8",
            "trainer.save_every_n_steps=3",
            "trainer.log_every_n_steps=1",
            "trainer.keep_top_k=1",
            "callbacks.figures=null",
            "device.threads=1",
            "print_config=false",
            f"output_dir={run}",
            *options,
        ]

    def start(self) -> subprocess.Popen:
        """Begins the run, or goes on with it if it was begun."""
        begun = (self.run / "summary.json").exists()
        return self.launch([*self.command, *([f"resume={self.run}"] if begun else self.options)])

    def launch(self, command: list[str]) -> subprocess.Popen:
        """Starts a command whose screen is added to the trial's."""
        with open(self.screen, "a", encoding="utf-8") as screen:
            return subprocess.Popen(
                command,
                cwd=self.run.parent,
                env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160", "GLOG_v": "3"},
                stdout=screen,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def wait_for(self, process: subprocess.Popen, rows: int) -> bool:
        """Waits until the run has logged so many rows; False if it ended before."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if process.poll() is not None:
                return False
            if (self.run / "summary.json").exists() and len(logged(self.run)) >= rows:
                return True
            time.sleep(0.01)
        raise TimeoutError(f"{self.run}: {rows} rows were not logged in {PATIENCE} s")

    def cut(self, rows: int, pause: float = 0, number: int = signal.SIGKILL) -> int:
        """Ends the run by a signal, `pause` seconds after so many rows; returns the exit code."""
        process = self.start()
        if self.wait_for(process, rows):
            time.sleep(pause)
            process.send_signal(number)
        return process.wait(PATIENCE)

    def finish(self) -> str:
        """Goes on to the end; returns all that was ever printed."""
        code = self.start().wait(PATIENCE)
        assert code == 0, f"exit code {code}:\n{self.printed()}"
        return self.printed()

    def printed(self) -> str:
        """All that was ever printed."""
        return self.screen.read_text(encoding="utf-8")

    def outcome(self) -> dict[str, object]:
        """What the finished run leaves that must not depend on how often it was cut off."""
        checkpoints = self.run / "checkpoints"
        state = np.load(checkpoints / "last_state.npz")
        evaluation = json.loads((self.run / "eval.json").read_text())
        evaluation["protocol"].pop("seconds")
        return {
            "status": summary(self.run)["status"],
            "best": summary(self.run)["best"],
            "metrics.csv": logged(self.run),
            "eval.json": evaluation,
            "state": {n: state[n].tobytes() for n in state.files if n != "progress.json"},
            **{path.name: path.read_bytes() for path in sorted(checkpoints.glob("*.ckpt"))},
        }


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv` without the speed, which is never twice the same."""
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows]


def summary(run: Path) -> dict[str, object]:
    """What the run says of itself; empty if it was killed before it said anything."""
    text = (run / "summary.json").read_text()
    return json.loads(text) if text else {}


def differences(left: dict[str, object], right: dict[str, object]) -> list[str]:
    """Names of what is not the same in two outcomes."""
    return [name for name in {**left, **right} if left.get(name) != right.get(name)]
