"""Sweeps on a SLURM cluster of this machine's own (`make test-slurm`, some minutes).

No part of the suite: pytest does not collect a file of this name unless it is asked to.
"""

import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.integration.dataset import make_dataset
from tests.slurm.slurm_cluster import SlurmCluster, missing

pytestmark = pytest.mark.timeout(600)

SLOW = '''
import time

from src.engine.callbacks.base import Callback


class Slow(Callback):
    """A second a step."""

    def on_train_step_end(self, run_context):
        time.sleep(1)
'''


class Site:
    """A working folder on a cluster of two cores, in which sweeps of short runs are made."""

    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.commands: list[subprocess.Popen] = []
        (folder / "slow.py").write_text(SLOW)
        self._settings = [
            "dataset=folder", f"dataset.root={make_dataset(folder / 'data')}",
            "dataset.crop_size=[64,64]", "dataset.batch_size=2", "model=fcn32s",
            "model/backbone=compact", "model.backbone.channels=[4,4,4,4,4]",
            "device.mode=pynative", "callbacks.figures=null", "trainer.limit_val_batches=1",
            "print_config=false", "hydra/launcher=submitit_slurm",
            "hydra.launcher.cpus_per_task=1",
        ]  # fmt: skip

    def sweep(self, name: str, *arguments: str) -> "Sweep":
        """Begins a sweep in the folder of this name."""
        return Sweep(self, name, "-m", *self._settings, *arguments, f"hydra.sweep.dir={name}")

    def resume(self, name: str) -> "Sweep":
        """Goes on with it."""
        return Sweep(self, name, f"resume_sweep={name}")


class Sweep:
    """The command of a sweep, at work."""

    def __init__(self, site: Site, name: str, *arguments: str) -> None:
        self.path, self._site = site.folder / name, site
        self._screen = site.folder / f"{name}.screen"
        with open(self._screen, "wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "src.train", *arguments],
                cwd=site.folder,
                env=site.cluster.environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"},
                stdout=screen,
                stderr=subprocess.STDOUT,
            )
        site.commands.append(self.process)

    def end(self, code: int) -> str:
        """Waits for the exit code; what was printed."""
        found = self.process.wait(500)
        printed = self._screen.read_text()
        assert found == code and "Traceback" not in printed, printed
        return printed

    @property
    def rows(self) -> list[dict[str, str]]:
        with open(self.path / "sweep.csv", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def submissions(self) -> int:
        """How often a job was given to SLURM."""
        return len(list((self.path / ".submitit").glob("*_submitted.pkl")))

    def summary(self, number: int) -> dict:
        return json.loads((self.path / str(number) / "summary.json").read_text())

    def log(self, number: int) -> str:
        file = self.path / str(number) / "train.log"
        return file.read_text() if file.exists() else ""

    def wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition():
            at_work = self.process.poll() is None and time.monotonic() < until
            assert at_work, self._screen.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    if missing():
        needed = "on Debian and Ubuntu: apt-get install slurm-wlm munge"
        pytest.exit(f"SLURM is not installed (no {', '.join(missing())}); {needed}", returncode=1)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        SlurmCluster(Path(folder), cores=2) as cluster,
    ):
        signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", returncode=143))
        work = Path(folder) / "work"
        work.mkdir()
        yield Site(work, cluster)


@pytest.fixture(autouse=True)
def empty_queue(site) -> Iterator[None]:
    """No test leaves a job to the next, nor a command."""
    yield
    left = site.cluster.ask("squeue", "--noheader")
    for command in site.commands:
        command.kill()
        command.wait()
    site.cluster.cancel_all()
    assert not left


def test_of_four_jobs_one_fails_and_the_best_is_named(site):
    sweep = site.sweep(
        "four", "model=fcn32s,fcn16s,fcn9s,fcn8s", "trainer.max_epochs=2", "dataset.num_workers=2"
    )
    printed = sweep.end(1)
    assert [row["status"] for row in sweep.rows] == ["completed"] * 2 + ["failed", "completed"]
    assert sweep.rows[2]["reason"] == "model=fcn9s: no such option; did you mean 'fcn8s'?"
    best = max((row for row in sweep.rows if row["val/miou"]), key=lambda r: float(r["val/miou"]))
    assert f"best: job {best['job']}" in printed
    assert "1 of 4 jobs did not end well (jobs 2)" in printed
    for number in (0, 1, 3):  # the cores of the job, not those of the node
        assert "1 cores" in sweep.log(number)


def test_a_job_whose_time_is_up_is_queued_again_and_goes_on_where_it_was(site):
    sweep = site.sweep(
        "late", "+callbacks.slow._target_=slow.Slow", "seed=1", "trainer.max_epochs=24",
        "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=10",
    )  # fmt: skip
    sweep.end(0)
    log = sweep.log(0)
    cuts = log.count("SIGTERM: stopping where it can be saved")
    assert cuts >= 1 and log.count("going on after step") == cuts
    (job_id,) = {file.name.partition("_")[0] for file in (sweep.path / ".submitit").glob("*.pkl")}
    assert f"Restarts={cuts} " in site.cluster.ask("scontrol", "show", "job", job_id)
    assert sweep.submissions == 1
    assert [log.count(f"epoch {epoch}/24 ") for epoch in range(1, 25)] == [1] * 24
    with open(sweep.path / "0" / "metrics.csv", newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == sorted(set(steps), key=int)


@pytest.mark.parametrize("partition", ["main", "graceful"])
def test_a_job_that_is_preempted_saves_and_goes_on_where_it_was(site, partition):
    sweep = site.sweep(
        f"preempted_{partition}", f"hydra.launcher.partition={partition}", "seed=1",
        "+callbacks.slow._target_=slow.Slow", "trainer.max_epochs=2",
    )  # fmt: skip
    sweep.wait(lambda: "epoch 1/2" in sweep.log(0))
    urgent = ["--partition=urgent", f"--cpus-per-task={site.cluster.cores}", "--output=/dev/null"]
    site.cluster.ask("sbatch", *urgent, "--wrap=sleep 1")
    sweep.end(0)
    log = sweep.log(0)
    assert log.count("SIGTERM: stopping where it can be saved") == 1
    assert "going on after step" in log and log.count("epoch 2/2 ") == 1
    assert sweep.submissions == 1


def test_a_cancelled_sweep_leaves_nothing_in_the_queue_and_goes_on(site):
    sweep = site.sweep(
        "cut", "+callbacks.slow._target_=slow.Slow", "seed=1,2,3,4", "trainer.max_epochs=3",
        "trainer.limit_train_batches=3",
    )  # fmt: skip
    sweep.wait(lambda: "epoch 1/3" in sweep.log(0) and "epoch 1/3" in sweep.log(1))
    sweep.process.send_signal(signal.SIGINT)
    sweep.end(130)
    assert site.cluster.ask("squeue", "--noheader") == ""
    assert [row["status"] for row in sweep.rows] == ["interrupted"] * 2 + ["waiting"] * 2
    assert sweep.summary(0)["reason"] == "Terminated"  # it saved, and said so itself

    resumed = site.resume("cut")
    resumed.end(0)
    assert [row["status"] for row in resumed.rows] == ["completed"] * 4
    for number in range(4):
        assert resumed.summary(number)["last"]["epoch"] == 3
        log = resumed.log(number)
        assert [log.count(f"epoch {epoch}/3 ") for epoch in (1, 2, 3)] == [1, 1, 1]


def test_jobs_go_on_without_the_command_and_are_taken_up_by_the_next(site):
    sweep = site.sweep(
        "left", "+callbacks.slow._target_=slow.Slow", "seed=1,2,3,4", "trainer.max_epochs=2",
        "trainer.limit_train_batches=3",
    )  # fmt: skip
    sweep.wait(lambda: "epoch 1/2" in sweep.log(0))
    sweep.process.kill()
    sweep.process.wait()
    resumed = site.resume("left")
    resumed.end(0)
    assert [row["status"] for row in resumed.rows] == ["completed"] * 4
    assert resumed.submissions == 4


def test_what_the_cluster_does_not_take_is_one_line(site):
    printed = site.sweep("wrong", "seed=1,2", "hydra.launcher.partition=nowhere").end(1)
    assert "hydra/launcher=submitit_slurm: sbatch: error: invalid partition" in printed
