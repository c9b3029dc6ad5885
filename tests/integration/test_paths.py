"""Whole commands in folders and on files of any name, and on screens of few characters."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.integration.conftest import Workshop
from tests.integration.dataset import make_dataset

pytestmark = pytest.mark.slow

NAME = "it's a [test] #1, b=c; (数据 é)"
TINY = [
    "dataset=folder", "dataset.crop_size=[64,64]", "dataset.batch_size=2", "model=fcn32s",
    "model/backbone=compact", "model.backbone.channels=[4,4,4,4,4]", "device.mode=pynative",
    "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
    "callbacks.figures=null", "print_config=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A working directory of such a name, with a trained run in it."""
    path = tmp_path_factory.mktemp("named") / NAME
    make_dataset(path / "set [1]")
    with Workshop(path) as workshop:
        places = [f"dataset.root={path}/set [1]", f"paths.data_dir={path}/d#1"]
        workshop.run("train", *TINY, *places, "output_dir=my run's")
        yield workshop


def test_a_run_is_gone_on_with_and_serves_as_a_start(named):
    named.run("train", "resume=my run's", "trainer.max_epochs=2")
    summary = json.loads((named.path / "my run's" / "summary.json").read_text())
    assert summary["last"]["epoch"] == 2
    places = [f"dataset.root={named.path}/set [1]", f"paths.data_dir={named.path}/d#1"]
    printed = named.run("train", *TINY, *places, "model.weights=my run's", "output_dir=b, #2")
    assert "my run's/checkpoints/best.ckpt" in " ".join(printed.split())


def test_a_runs_directory_is_evaluated_predicted_with_and_exported(named):
    run = "ckpt_path=my run's"
    named.run("eval", run, "output_dir=e=1")
    config = yaml.safe_load((named.path / "e=1" / "config.resolved.yaml").read_text())
    assert config["ckpt_path"] == "my run's/checkpoints/best.ckpt"
    named.run("predict", run, "input=set [1]/JPEGImages/v*.jpg", "output=p, '1'")
    assert len(list((named.path / "p, '1'").glob("v0?.png"))) == 4
    named.run("export", run, "format=safetensors", "output=é [1].safetensors")
    assert (named.path / "é [1].safetensors").exists()
    printed = named.run("eval", "ckpt_path=set [1]", code=1)
    assert "has no checkpoints/best.ckpt or last.ckpt" in printed


def test_a_sweep_has_its_jobs_in_a_directory_of_any_name(named):
    places = [f"dataset.root={named.path}/set [1]", f"paths.data_dir={named.path}/d#1"]
    sweep = "hydra.sweep.dir=s'w, ee#p"
    named.run("train", "-m", *TINY, *places, "seed=0,1", "hydra.launcher.n_jobs=2", sweep)
    named.run("train", "resume_sweep=s'w, ee#p")
    for job in "01":
        summary = json.loads((named.path / "s'w, ee#p" / job / "summary.json").read_text())
        assert summary["status"] == "completed"


def test_another_value_that_hydra_cannot_read_is_one_line_with_its_repair(named):
    printed = named.run("train", "task_name=实验", code=1)
    assert printed.strip().endswith("""'task_name="实验"'""") and printed.count("\n") == 1


def test_a_screen_of_few_characters_fails_no_run(named, tmp_path):
    data = make_dataset(tmp_path / "data")
    (data / "classes.txt").write_text("背景\nsquare – bright\n[/disc]\n", encoding="utf-8")
    run = tmp_path / "数"
    for command in (
        ["src.train", *TINY[:-1], f"dataset.root={data}", f"output_dir={run}"],
        ["src.report", str(run)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=named.environment | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
        )
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    assert json.loads((run / "eval.json").read_text())["per_class"].keys() >= {"背景"}
