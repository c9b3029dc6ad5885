"""Runs that everything happens to, over and over: `python -m tests.soak [MINUTES]`.

Each round cuts runs off in one way and goes on with them; what they leave must be what the run left
that nothing happened to. The table at the end says what was done; the exit code is 1 if anything
was lost, and the folder of the rounds is kept then.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.table import Table

from src.utils.console import console
from tests.integration.dataset import make_dataset
from tests.integration.trials import Trial, differences, summary

ROWS = 48  # that an uninterrupted run logs
RANKS = 2
RANK_SECONDS = 15  # in which the death of a rank has to end its job


@dataclass
class RoundStatistics:
    """What was done in the rounds of one kind, and what went wrong."""

    rounds: int = 0
    cuts: int = 0  # times a run was ended
    lost: list[str] = field(default_factory=list)
    skipped: str = ""


class Soak:
    """Works through the kinds of rounds until the time is over.

    Args:
        folder: Where data and runs lie.
        seconds: How long; a round that has begun is ended.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.until = time.monotonic() + seconds
        self.data = make_dataset(folder / "data")
        self.statistics = {name: RoundStatistics() for name in self.kinds()}
        self._whole: dict[int, dict[str, object]] = {}  # outcome by number of ranks

    def kinds(self) -> dict[str, Callable[[RoundStatistics], None]]:
        """The kinds of rounds by what is done in them."""
        return {
            "SIGKILL at one to three random moments": self.kill,
            "Ctrl-C or SIGTERM": self.interrupt,
            "newest state truncated": self.truncate,
            "disk full": self.fill_disk,
            "one of two ranks killed": self.kill_rank,
            "parallel sweep killed": self.kill_sweep,
        }

    def run(self) -> bool:
        """Runs the rounds in turn; returns whether nothing was lost."""
        while time.monotonic() < self.until:
            for name, kind in self.kinds().items():
                statistics = self.statistics[name]
                if time.monotonic() >= self.until or statistics.skipped:
                    continue
                self.seed = random.randrange(2**32)
                random.seed(self.seed)
                statistics.rounds += 1
                try:
                    kind(statistics)
                except Exception as error:  # whatever it is, it is a finding
                    statistics.lost.append(f"{type(error).__name__}: {error}")
                state = (
                    f"LOST {statistics.lost[-1]}"
                    if statistics.lost
                    else statistics.skipped or "as it should"
                )
                console.print(f"{name}, round {statistics.rounds}, seed {self.seed}: {state}")
        return not any(statistics.lost for statistics in self.statistics.values())

    def kill(self, statistics: RoundStatistics) -> None:
        trial = self.trial("killed", statistics)
        for rows in sorted(random.randrange(ROWS) for _ in range(random.randint(1, 3))):
            statistics.cuts += 1
            trial.cut(rows, random.random() if rows == 0 else 0.1 * random.random())
        self.compare(trial, statistics)

    def interrupt(self, statistics: RoundStatistics) -> None:
        trial, rows = self.trial("interrupted", statistics), random.randrange(1, ROWS - 8)
        number = random.choice([signal.SIGINT, signal.SIGTERM])
        statistics.cuts += 1
        code = trial.cut(rows, 0, number)
        ended = (code, summary(trial.run)["status"])
        if ended != (128 + number, "interrupted"):
            statistics.lost.append(
                f"after {number.name} at row {rows}: exit code and status {ended}"
            )
        self.compare(trial, statistics)

    def truncate(self, statistics: RoundStatistics) -> None:
        trial = self.trial("truncated", statistics)
        statistics.cuts += 1
        trial.cut(random.randrange(15, ROWS - 8))
        state = trial.run / "checkpoints" / "last_state.npz"
        if state.exists():
            os.truncate(state, random.randrange(state.stat().st_size))
        self.compare(trial, statistics)
        if state.exists() and "no training state" not in " ".join(trial.printed().split()):
            statistics.lost.append(f"{state} was truncated, and nobody said so")

    def fill_disk(self, statistics: RoundStatistics) -> None:
        with small_disk(self.folder / "disk") as disk:
            if disk is None:
                statistics.skipped = "file systems cannot be mounted here"
                return
            trial = self.trial("filled", statistics, disk)
            process = trial.start()
            trial.wait_for(process, random.randrange(2, ROWS // 2))
            statistics.cuts += 1
            filler = disk / "filler"
            fill(filler)
            code = process.wait(100)
            if code != 1 or trial.printed().count("error:") != 1:
                statistics.lost.append(f"full disk: exit code {code}\n{trial.printed()}")
            filler.unlink()
            self.compare(trial, statistics)

    def kill_rank(self, statistics: RoundStatistics) -> None:
        trial = self.trial("ranks", statistics, ranks=RANKS)
        process, rank = trial.start(), random.randrange(RANKS)
        trial.wait_for(process, random.randrange(1, ROWS // 2))
        statistics.cuts += 1
        began = time.monotonic()
        workers = {
            child.environ().get("RANK_ID"): child
            for child in psutil.Process(process.pid).children()
            if child.environ().get("MS_ROLE") == "MS_WORKER"
        }
        workers[str(rank)].kill()
        code, seconds = process.wait(100), time.monotonic() - began
        named = f"rank {rank} was ended by SIGKILL" in trial.printed()
        if code != 1 or seconds > RANK_SECONDS or not named:
            statistics.lost.append(
                f"rank {rank} killed: exit code {code} after {seconds:.0f} s, {named=}"
            )
        self.compare(trial, statistics, RANKS)

    def kill_sweep(self, statistics: RoundStatistics) -> None:
        trial = self.trial("job", statistics)
        sweep = self.folder / f"sweep_{statistics.rounds}"
        options = [o for o in trial.options if not o.startswith("output_dir=")]
        command = [sys.executable, "-m", "src.train"]
        grid = ["-m", "seed=0,1,2", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={sweep}"]
        process = trial.launch([*command, *grid, *options])
        job = Trial(sweep / str(random.randrange(2)), self.data)
        job.wait_for(process, random.randrange(1, ROWS // 2))
        statistics.cuts += 1
        for victim in (*psutil.Process(process.pid).children(recursive=True), process):
            victim.kill()
        process.wait(100)
        code = trial.launch([*command, f"resume_sweep={sweep}"]).wait(600)
        statuses = [summary(sweep / str(n)).get("status") for n in range(3)]
        if code != 0 or statuses != ["completed"] * 3:
            statistics.lost.append(f"sweep: exit code {code}, {statuses}; see {trial.screen}")
        self.judge(Trial(sweep / "0", self.data), statistics)

    def trial(
        self, name: str, statistics: RoundStatistics, folder: Path | None = None, ranks: int = 0
    ) -> Trial:
        """A new run, after the one that nothing happens to, if that is to come yet."""
        if ranks not in self._whole:
            whole = Trial(self.folder / f"whole_{ranks}", self.data, ranks=ranks)
            whole.finish()
            self._whole[ranks] = whole.outcome()
        return Trial(
            (folder or self.folder) / f"{name}_{statistics.rounds}", self.data, ranks=ranks
        )

    def compare(self, trial: Trial, statistics: RoundStatistics, ranks: int = 0) -> None:
        """Goes on to the end and compares with the run that nothing happened to."""
        trial.finish()
        self.judge(trial, statistics, ranks)
        if not statistics.lost:
            shutil.rmtree(trial.run)

    def judge(self, trial: Trial, statistics: RoundStatistics, ranks: int = 0) -> None:
        if found := differences(trial.outcome(), self._whole[ranks]):
            statistics.lost.append(f"{trial.run} differs in {', '.join(found)}")


@contextmanager
def small_disk(path: Path):
    """A file system of 60 MB; None where one cannot be mounted."""
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Writes until there is no room."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass


def main() -> None:
    """Soaks for so many minutes and reports."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 20
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    soak = Soak(folder, 60 * minutes)
    whole = soak.run()
    title = f"soak of {(time.monotonic() - began) / 60:.1f} minutes"
    table = Table(title=title, title_justify="left")
    for column in ("what happened to the runs", "rounds", "cut off", "lost"):
        table.add_column(column, justify="left" if column.startswith("what") else "right")
    for name, statistics in soak.statistics.items():
        lost = statistics.skipped or str(len(statistics.lost))
        table.add_row(name, str(statistics.rounds), str(statistics.cuts), lost)
    console.print(table)
    if whole:
        shutil.rmtree(folder)
        console.print("nothing was lost: every run ended as the one that nothing happened to")
    else:
        console.print(f"error: something was lost; the runs are in {folder}", style="bold red")
    sys.exit(not whole)


if __name__ == "__main__":
    main()
