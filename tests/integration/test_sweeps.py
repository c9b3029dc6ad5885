"""Sweeps as a person types them: doomed jobs, kills, a search, a cluster's launcher."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.wandb_file import history, records

pytestmark = pytest.mark.slow

ENDINGS = '''
import os
import signal

from src.engine.callbacks.base import Callback


class Nothing(Callback):
    """Ends well."""


class Crash(Callback):
    """Dies as native code does."""

    def on_train_step_end(self, run_context):
        os.kill(os.getpid(), signal.SIGSEGV)
'''


@pytest.fixture(scope="session")
def tiny(workshop):
    """Overrides of a training run of four seconds."""
    (workshop.path / "endings.py").write_text(ENDINGS)
    return [
        "dataset=folder", f"dataset.root={workshop.data}", "dataset.crop_size=[64,64]",
        "dataset.batch_size=2", "model=fcn32s", "model/backbone=compact",
        "model.backbone.channels=[4,4,4,4,4]", "device.mode=pynative", "callbacks.figures=null",
        "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "print_config=false",
    ]  # fmt: skip


def table(sweep: Path) -> list[dict[str, str]]:
    with open(sweep / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def summary(job: Path) -> dict:
    return json.loads((job / "summary.json").read_text())


def begin(workshop, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *arguments],
        cwd=workshop.path,
        env=workshop.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def wait_for(text: str, file: Path) -> None:
    until = time.monotonic() + 120
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < until, f"{text} never came to {file}"
        time.sleep(0.05)


def test_a_doomed_job_leaves_its_reason_and_the_others_go_on(workshop, tiny):
    printed = workshop.run(
        "train", "-m", *tiny, "trainer.max_epochs=1", "model=fcn32s,fcn9s",
        "+callbacks.ending._target_=endings.Crash,endings.Nothing", "hydra.launcher.n_jobs=2",
        "hydra.sweep.dir=doomed", code=1,
    )  # fmt: skip
    sweep = workshop.path / "doomed"
    rows = table(sweep)
    assert [row["status"] for row in rows] == ["failed", "completed", "failed", "failed"]
    assert rows[0]["reason"] == "ended by SIGSEGV"
    assert rows[2]["reason"] == "model=fcn9s: no such option; did you mean 'fcn8s'?"
    assert "Fatal Python error: Segmentation fault" in (sweep / "0" / "train.log").read_text()
    for job in "23":
        text = (sweep / job / "train.log").read_text()
        assert "Traceback" in text and "MissingConfigException" in text
        assert summary(sweep / job)["status"] == "failed"
    assert "best: job 1" in printed and "Traceback" not in printed
    assert "error: 3 of 4 jobs did not end well (jobs 0, 2, 3)" in printed
    config = (sweep / "1" / "config.resolved.yaml").read_text()
    assert f"threads: {max(1, len(os.sched_getaffinity(0)) // 2)}" in config


def test_a_sweep_that_is_stopped_and_then_killed_goes_on_to_its_end(workshop, tiny):
    sweep = workshop.path / "cut"
    arguments = ["-m", *tiny, "trainer.max_epochs=6", "seed=1,2", "hydra.sweep.dir=cut"]
    process = begin(workshop, *arguments)
    wait_for("epoch 1/6", sweep / "0" / "train.log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert [row["status"] for row in table(sweep)] == ["interrupted", "waiting"]
    assert summary(sweep / "0")["reason"] == "Terminated"  # it saved, and said so itself

    process = begin(workshop, "resume_sweep=cut")
    wait_for("epoch 1/6", sweep / "1" / "train.log")
    process.kill()
    process.wait(60)
    first = (sweep / "0" / "summary.json").stat().st_mtime_ns
    printed = workshop.run("train", "resume_sweep=cut")
    assert (sweep / "0" / "summary.json").stat().st_mtime_ns == first
    assert [row["status"] for row in table(sweep)] == ["completed"] * 2
    for job in "01":
        assert summary(sweep / job)["last"]["epoch"] == 6
        log = (sweep / job / "train.log").read_text()
        assert "going on after step" in log and log.count("epoch 3/6") == 1
    assert "2/2" in printed  # seeds, as mean ± std


def test_a_search_that_is_killed_goes_on_with_its_trials_and_prunes(workshop, tiny):
    sweep = workshop.path / "search"
    process = begin(
        workshop, "sweep=optuna", *tiny, "trainer.max_epochs=3", "hydra.sweep.dir=search",
        "hydra.sweeper.n_trials=2", "hydra/sweeper/pruner=none",
        "hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner",
        "+hydra.sweeper.pruner.lower=2",  # no mIoU reaches it: all are hopeless
    )  # fmt: skip
    wait_for("training 3 epochs", sweep / "1" / "train.log")
    process.kill()
    process.wait(60)
    workshop.run("train", "resume_sweep=search")
    rows = table(sweep)
    assert [row["status"] for row in rows] == ["pruned"] * 2
    assert rows[0]["optimizer.learning_rate"] != rows[1]["optimizer.learning_rate"]
    for job in "01":
        assert summary(sweep / job)["last"]["epoch"] == 1
        assert summary(sweep / job)["reason"].startswith("pruned by the search: val/miou 0.")


def test_the_same_sweep_started_twice_at_once_gives_two_directories(workshop, tiny):
    arguments = ["-m", *tiny, "model=fcn9s,fcn7s", "paths.experiments_dir=twice"]
    processes = [begin(workshop, *arguments) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [1, 1]
    sweeps = list((workshop.path / "twice" / "train" / "multiruns").iterdir())
    assert len(sweeps) == 2
    assert all([row["status"] for row in table(sweep)] == ["failed"] * 2 for sweep in sweeps)


@pytest.fixture(scope="session")
def queued(workshop, tiny):
    """A sweep of one job, through submitit and with W&B offline."""
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"
    try:
        workshop.run(
            "train", "-m", *tiny, "trainer.max_epochs=2", "hydra/launcher=submitit_local",
            "logger=wandb", "seed=5", "hydra.sweep.dir=queued",
        )  # fmt: skip
    finally:
        os.environ["WANDB_MODE"] = before
    return workshop.path / "queued"


def test_submitit_runs_jobs_in_directories_of_their_own(queued):
    assert [row["status"] for row in table(queued)] == ["completed"]
    assert summary(queued / "0")["last"]["epoch"] == 2
    assert list((queued / ".submitit").iterdir())


def test_wandb_has_the_rows_of_the_csv_in_a_run_of_the_sweeps_group_that_is_closed(queued):
    (file,) = (queued / "0" / "wandb").glob("offline-run-*/*.wandb")
    with open(queued / "0" / "metrics.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    logged = history(file)
    for key in ("train/loss", "lr", "val/miou", "val/iou/disc"):
        expected = [float(row[key]) for row in rows if row[key]]
        got = [float(row[key]) for row in logged if key in row]
        assert got == pytest.approx(expected, nan_ok=True) and len(got) == 2, key
    kinds = {record.WhichOneof("record_type"): record for record in records(file)}
    run = kinds["run"].run
    assert run.run_group == "queued"
    assert run.run_id == summary(queued / "0")["wandb_id"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["run_directory"].endswith("queued/0") and config["seed"] == 5
    assert kinds["exit"].exit.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: expected a whole number of"),
        (["on_error=stopp"], "on_error=stopp: expected one of continue, stop"),
        (["output_dir=x"], "output_dir: each job has its own; give hydra.sweep.dir=DIR"),
        (["hydra/launcher=basic"], "hydra/launcher=basic: jobs need a process each"),
        (["seed=interval(0,1)"], "for an interval take sweep=optuna"),
        (["sweep=optuna", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: expected"),
        (["hydra.sweep.dir=shapes_and_discs"], "shapes_and_discs: is not empty"),
    ],
)
def test_mistakes_get_one_line_and_begin_no_job(workshop, arguments, expected):
    printed = workshop.run("train", "-m", "paths.experiments_dir=none", *arguments, code=1)
    assert expected in " ".join(printed.split()) and "Traceback" not in printed
    assert not list(workshop.path.glob("none/**/summary.json"))


def test_sweepers_that_others_wrote_get_the_launcher_they_expect(workshop):
    printed = workshop.run(
        "train", "-m", "hydra/sweeper=basic", "model.stride=2", "hydra.sweep.dir=basic", code=1
    )
    assert "error: model.stride=2: expected one of 4, 8, 16, 32" in printed
    assert "Traceback" not in printed
    assert summary(workshop.path / "basic" / "0")["status"] == "failed"


def test_only_training_is_swept(workshop):
    printed = workshop.run("prepare", "-m", "seed=0,1", code=1)
    assert "sweeps are of training runs" in printed and "Traceback" not in printed
