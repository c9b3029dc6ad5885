"""A sweep's directory and command line: claimed once, and read again."""

import pytest
import yaml

from src.cli.resume_sweep import with_resumed_sweep
from src.sweeps.jobs import SweepDirectory
from src.utils.errors import UserError


def sweep(path, *task, hydra=(), resumed=False):
    overrides = {"task": list(task), "hydra": ["hydra.mode=MULTIRUN", *hydra]}
    config = yaml.safe_dump({"hydra": {"overrides": overrides}})
    return SweepDirectory(path, ["seed=1"], config, resumed)


def test_jobs_and_what_is_common_to_them_are_remembered(tmp_path):
    first = sweep(tmp_path / "s")
    first.add(["model=fcn8s"], ["model=fcn16s"])
    first.lock.release()
    again = SweepDirectory(tmp_path / "s", [], "", resumed=True)
    assert [job.alone() for job in again.jobs] == [
        ["seed=1", "model=fcn8s"], ["seed=1", "model=fcn16s"],
    ]  # fmt: skip
    assert again.jobs[1].path == tmp_path / "s" / "1"
    assert again.jobs[1].arguments()[-1] == f"output_dir={tmp_path}/s/1"


def test_a_job_that_has_begun_goes_on(tmp_path):
    (job,) = sweep(tmp_path / "s").add([])
    (job.path / ".hydra").mkdir(parents=True)
    (job.path / ".hydra" / "overrides.yaml").touch()
    assert job.arguments() == [f"resume={job.path}"]


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "0").mkdir()
    with pytest.raises(UserError, match="hydra.sweep.dir=.*is not empty; give another directory"):
        sweep(tmp_path)
    assert not (tmp_path / "multirun.yaml").exists()


def test_two_processes_never_work_on_one_sweep(tmp_path):
    held = sweep(tmp_path / "s")
    with pytest.raises(UserError, match="resume_sweep=.*another process is at work"):
        sweep(tmp_path / "s", resumed=True)
    held.lock.release()
    sweep(tmp_path / "s", resumed=True)


def test_a_sweep_goes_on_by_its_own_command_line(tmp_path):
    sweep(tmp_path / "s", "seed=0,1", "on_error=stop", hydra=("hydra.launcher.n_jobs=2",))
    named = f"resume_sweep={tmp_path}/s"
    assert with_resumed_sweep([named, "hydra.launcher.n_jobs=1"]) == [
        "-m", "seed=0,1", "on_error=stop", named, "hydra.launcher.n_jobs=1",
        f"hydra.sweep.dir='{tmp_path}/s'",
    ]  # fmt: skip


def test_what_is_no_sweep_and_what_would_change_its_jobs_is_refused(tmp_path):
    with pytest.raises(UserError, match="no sweep to go on with"):
        with_resumed_sweep([f"resume_sweep={tmp_path}"])
    sweep(tmp_path / "s")
    with pytest.raises(UserError, match="seed=3: a sweep goes on with its own jobs"):
        with_resumed_sweep([f"resume_sweep={tmp_path}/s", "seed=3"])


def test_other_command_lines_are_left_as_they_are():
    assert with_resumed_sweep(["-m", "seed=0,1"]) == ["-m", "seed=0,1"]
    assert with_resumed_sweep(["resume_sweep=null"]) == ["resume_sweep=null"]


def test_shares_of_the_machine_are_those_of_this_time_and_no_part_of_a_job(tmp_path):
    SweepDirectory(tmp_path / "s", ["a=1"], "", False, ["device.threads=2"]).add(["b=1"], ["b=2"])
    (tmp_path / "s" / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "s" / "0" / ".hydra" / "overrides.yaml").touch()
    begun, waiting = SweepDirectory(tmp_path / "s", [], "", True, ["device.threads=1"]).jobs
    assert begun.arguments() == [f"resume={begun.path}", "device.threads=1"]
    assert waiting.arguments()[:3] == ["a=1", "b=2", "device.threads=1"]
    assert waiting.alone() == ["a=1", "b=2"]


def test_settings_of_the_launcher_before_are_not_those_of_another(tmp_path):
    started = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    config = {"hydra": {"overrides": {"hydra": started, "task": ["seed=0,1"]}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(config))
    same = with_resumed_sweep([f"resume_sweep={tmp_path}"])
    assert same[1:4] == [*started, "seed=0,1"]
    other = with_resumed_sweep([f"resume_sweep={tmp_path}", "hydra/launcher=processes"])
    assert other[1:3] == ["seed=0,1", f"resume_sweep={tmp_path}"]
