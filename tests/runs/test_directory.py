"""Run directories: claimed once, and the newest completed one found."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.runs.directory import RunDirectory, checkpoint_at, newest_checkpoint, run_directory_of
from src.utils.errors import UserError


def summary(path):
    return json.loads((path / "summary.json").read_text())


def finished(root, name, command="train", task_name="train", status="completed", ckpt="best.ckpt"):
    run = RunDirectory(root / task_name / "runs" / name, command, task_name)
    run.update(status=status)
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / ckpt).touch()
    return run.path


def test_a_directory_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path):
    RunDirectory(tmp_path / "run", "train", "train").update(status="completed")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        RunDirectory(tmp_path / "run", "train", "train")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_of_many_runs_that_claim_one_directory_at_once_one_gets_it(tmp_path):
    def claim(_):
        try:
            return RunDirectory(tmp_path / "run", "train", "train")
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        claimed = [run for run in pool.map(claim, range(8)) if run]
    assert len(claimed) == 1


def test_the_summary_tells_status_versions_and_nan_as_null(tmp_path):
    run = RunDirectory(tmp_path, "train", "camvid")
    assert summary(tmp_path)["status"] == "running"
    run.update(status="completed", best={"epoch": 2, "val/miou": 0.5, "val/iou/x": float("nan")})
    written = summary(tmp_path)
    assert written["task_name"] == "camvid" and written["best"]["val/iou/x"] is None
    assert written["versions"]["mindspore"] and written["seconds"] >= 0
    with pytest.raises(KeyError, match="staus"):
        run.update(staus="completed")


def test_the_newest_completed_training_run_is_found_debug_and_failed_ones_are_not(tmp_path):
    old = finished(tmp_path, "1")
    new = finished(tmp_path, "2", task_name="camvid", ckpt="last.ckpt")
    finished(tmp_path, "3", task_name="debug")
    finished(tmp_path, "4", status="failed")
    finished(tmp_path, "5", command="eval", task_name="eval")
    os.utime(old / "summary.json", (1, 1))
    assert newest_checkpoint(tmp_path) == new / "checkpoints" / "last.ckpt"


def test_without_a_completed_run_one_line_says_what_to_do(tmp_path):
    finished(tmp_path, "1", status="interrupted")
    with pytest.raises(UserError, match="make demo"):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_knows_its_run_by_the_config_beside_it(tmp_path):
    path = finished(tmp_path, "1")
    assert run_directory_of(path / "checkpoints" / "best.ckpt") is None
    (path / "config.resolved.yaml").touch()
    assert run_directory_of(path / "checkpoints" / "best.ckpt") == path


def test_a_runs_directory_stands_for_its_best_checkpoint_or_else_the_last(tmp_path):
    run = finished(tmp_path, "1", ckpt="last.ckpt")
    assert checkpoint_at(str(run)) == f"{run}/checkpoints/last.ckpt"
    (run / "checkpoints" / "best.ckpt").touch()
    assert checkpoint_at(str(run)) == f"{run}/checkpoints/best.ckpt"
    for other in (f"{run}/checkpoints/last.ckpt", "https://host/a.ckpt", "tutorial_fcn8s"):
        assert checkpoint_at(other) == other
    with pytest.raises(UserError, match="has no checkpoints/best.ckpt or last.ckpt"):
        checkpoint_at(str(tmp_path))
