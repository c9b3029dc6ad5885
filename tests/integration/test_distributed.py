"""Several ranks against one process: whole commands on two processes of this machine."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def data(workshop):
    """Ten training images, two of them without a valid pixel, and four to validate on."""
    root = workshop.path / "partly_void"
    shutil.copytree(workshop.data, root)
    for name in ("t02", "t05"):
        path = str(root / "SegmentationClass" / f"{name}.png")
        cv2.imwrite(path, np.full_like(cv2.imread(path, cv2.IMREAD_UNCHANGED), 255))
    return root


def options(data, *more):
    return [
        "dataset=folder", f"dataset.root={data}", "dataset.crop_size=[64,64]",
        "model/backbone=vgg_slim", "model.backbone.width=0.0625",
        "model.backbone.batch_norm=false", "optimizer=momentum", "optimizer.learning_rate=0.002",
        "trainer.log_every_n_steps=1", "print_config=false", "callbacks.figures=null", *more,
    ]  # fmt: skip


def rows(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def losses(run):
    return [float(row["train/loss"]) for row in rows(run) if row["train/loss"]]


def test_two_ranks_with_half_the_batch_are_one_process_with_the_whole(workshop, data):
    whole = ["dataset.batch_size=4", "trainer.gradient_clip=0.5", "trainer.max_epochs=3"]
    workshop.run("train", *options(data, *whole, "output_dir=one_process"))
    # Half the batch a rank, in two parts
    half = [
        "dataset.batch_size=1",
        "trainer.accumulate=2",
        "device.all_reduce_megabytes=0.1",
        *whole[1:],
    ]
    printed = workshop.run("distributed", "2", "train", *options(data, *half, "output_dir=ranks"))
    assert "2 steps, 4 images a step, shared by 2 processes" in printed
    assert "[WARNING]" not in printed and "best: epoch" in printed

    one, two = workshop.path / "one_process", workshop.path / "ranks"
    assert losses(two) == pytest.approx(losses(one), rel=1e-5) and len(losses(two)) == 6
    evaluations = [json.loads((run / "eval.json").read_text()) for run in (one, two)]
    assert evaluations[0]["per_class"] == evaluations[1]["per_class"]
    assert json.loads((two / "summary.json").read_text())["status"] == "completed"
    assert sorted(p.name for p in (two / "ranks").iterdir()) == [
        "rank_0.log", "rank_1.log", "scheduler.log",
    ]  # fmt: skip
    assert "epoch 3/3" in (two / "ranks" / "rank_1.log").read_text()

    checkpoint = f"ckpt_path={two / 'checkpoints' / 'best.ckpt'}"
    workshop.run("distributed", "2", "eval", checkpoint, "output_dir=ranks_evaluated")
    evaluated = json.loads((workshop.path / "ranks_evaluated" / "eval.json").read_text())
    assert evaluated["per_class"] == evaluations[1]["per_class"]


def test_a_rank_that_dies_ends_the_job_in_seconds_with_its_log_named(workshop, data):
    endless = ["dataset.batch_size=2", "trainer.max_epochs=9999", "trainer.val_every_n_epochs=9999"]
    run = workshop.path / "dying"
    arguments = options(data, *endless, "device.mode=pynative", f"output_dir={run}")
    with open(workshop.path / "dying.txt", "w") as screen:
        job = subprocess.Popen(
            [sys.executable, "-m", "src.distributed", "2", "train", *arguments],
            cwd=workshop.path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "160"},
            stdout=screen,
            stderr=subprocess.STDOUT,
        )
    try:
        while not (run / "metrics.csv").exists() or len(rows(run)) < 4:
            assert job.poll() is None, (workshop.path / "dying.txt").read_text()
            time.sleep(0.2)
        ranks = {
            process.environ().get("RANK_ID"): process
            for process in psutil.Process(job.pid).children()
        }
        ranks["1"].send_signal(signal.SIGKILL)
        assert job.wait(timeout=10) == 1
    finally:
        job.terminate()
    named = f"rank 1 was ended by SIGKILL; its log: {run / 'ranks' / 'rank_1.log'}"
    assert f"error: {named}" in (workshop.path / "dying.txt").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("failed", named)
    assert not any(process.is_running() for process in ranks.values())


def test_a_mistake_is_told_once_and_leaves_no_directory_of_the_other_rank(workshop, data):
    printed = workshop.run(
        "distributed", "2", "train", *options(data, "dataset.batch_size=6"),
        "paths.experiments_dir=mistaken", code=1,
    )  # fmt: skip
    assert printed.count("batch_size=6 × 2 processes: split 'train' holds 10 samples") == 1
    assert "Traceback" not in printed
    assert len(list((workshop.path / "mistaken" / "train" / "runs").iterdir())) == 1
