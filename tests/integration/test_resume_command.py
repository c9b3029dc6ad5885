"""Whole training commands that are killed, or run out of disk, and are resumed."""

import os
import random
import signal
import subprocess

import pytest

from tests.integration.trials import Trial, differences, summary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def whole(workshop):
    """The outcome of the run that nothing happens to."""
    trial = Trial(workshop.path / "uninterrupted", workshop.data)
    trial.finish()
    return trial.outcome()


def test_a_run_killed_at_three_random_moments_is_the_uninterrupted_one(workshop, whole):
    trial = Trial(workshop.path / "killed", workshop.data)
    # While it starts, in the first half of its 48 rows, in the second
    moments = [(0, random.random()), (random.randint(1, 20), 0.1 * random.random())]
    moments.append((random.randint(21, 40), 0.1 * random.random()))
    assert [trial.cut(*moment) for moment in moments] == [-9, -9, -9], moments
    printed = trial.finish()
    assert differences(trial.outcome(), whole) == [], moments
    assert whole["status"] == "completed" and len(whole["metrics.csv"]) == 48
    assert printed.count("going on after step") >= 1 and "Traceback" not in printed


def test_ctrl_c_ends_a_run_as_a_shell_expects_and_a_truncated_state_is_named(workshop, whole):
    trial = Trial(workshop.path / "truncated", workshop.data)
    assert trial.cut(20, number=signal.SIGINT) == 128 + signal.SIGINT
    assert summary(trial.run)["status"] == "interrupted"
    state = trial.run / "checkpoints" / "last_state.npz"
    os.truncate(state, state.stat().st_size // 2)
    printed = trial.finish()
    assert f"{state} is truncated or no training state" in " ".join(printed.split())
    assert differences(trial.outcome(), whole) == []


def test_a_refused_resume_leaves_the_run_as_it_was(workshop):
    workshop.train("refused", "trainer.max_epochs=1")
    run = workshop.path / "refused"
    files = ("config.resolved.yaml", ".hydra/config.yaml", "checkpoints/last_state.npz")
    before = [(run / name).read_bytes() for name in files]
    for wrong in ("model=fcn32s", "dataset.batch_size=1"):
        line = f"resume={run}", "trainer.max_epochs=2", wrong
        assert "resume: " in workshop.run("train", *line, code=1)
        assert [(run / name).read_bytes() for name in files] == before
        assert summary(run)["status"] == "completed"
        assert not list((run / ".hydra").glob("overrides.resume-*"))
    workshop.run("eval", f"ckpt_path={run}")
    workshop.run("train", f"resume={run}", "trainer.max_epochs=2")
    assert summary(run)["last"]["epoch"] == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_the_run_with_one_line_and_leaves_the_last_good_checkpoint(
    workshop, whole, small_disk
):
    trial = Trial(small_disk / "run", workshop.data)
    trial.screen = workshop.path / "full_disk.txt"
    process = trial.start()
    trial.wait_for(process, 12)
    with open(small_disk / "filler", "wb") as filler, pytest.raises(OSError):
        while True:
            filler.write(bytes(1 << 16))
            filler.flush()
    assert process.wait(100) == 1
    printed = trial.printed()
    assert printed.count("error:") == 1 and "No space left" in printed
    assert "Traceback" not in printed
    (small_disk / "filler").unlink()
    trial.finish()
    assert differences(trial.outcome(), whole) == []
