"""Jobs of a cluster: its queue, here of scripts, and what is asked of a job whose time is up."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import submitit

from src.sweeps import cluster
from src.utils.errors import UserError
from tests.sweeps.sweep_fixtures import job

# SLURM's commands, on a file that lists the jobs; it knows one partition and no accounting
COMMANDS = {
    "sbatch": '''grep -q 'partition=main' "$1" || { echo "invalid partition" >&2; exit 1; }
echo x >> submitted
wc -l < submitted >> queue
echo "Submitted batch job $(wc -l < submitted)"''',
    "squeue": """[ ! -e down ] || { echo "Unable to contact slurm controller" >&2; exit 1; }
cat queue""",
    "scancel": """sed -i "/^$1$/d" queue""",
    "sacct": "exit 1",
    "srun": "exit 1",
    "scontrol": """[ "$1" = show ] && cat shown || echo "$*" >> asked""",
}

# Saves on SIGTERM, as a training run does
JOB = """
import signal, sys, time
def save(*_):
    open('saved', 'w').close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open('begun', 'w').close()
time.sleep(60)
"""


def test_a_job_whose_time_is_up_while_it_is_waited_for_saves_and_is_queued_again(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", JOB]
    started = []

    def start(job, environment):
        started.append(subprocess.Popen(command))
        return started[0]

    monkeypatch.setattr(cluster, "start", start)
    submission = cluster.Submission(job(tmp_path), {}, str(tmp_path))
    again = []

    def time_is_up():
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        for pid in (started[0].pid, os.getpid()):  # as SLURM does
            os.kill(pid, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, lambda *_: again.append(submission.checkpoint()))
    thread = threading.Thread(target=time_is_up)
    thread.start()
    try:
        assert submission() == 143
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    assert (tmp_path / "saved").exists()
    assert isinstance(again[0], submitit.helpers.DelayedSubmission)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Makes the queue of a sweep."""
    monkeypatch.chdir(tmp_path)
    for name, script in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    (tmp_path / "queue").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(cluster, "_REFRESH_SECONDS", 0)
    return lambda partition="main": cluster.Queue("slurm", ".submitit", {"partition": partition})


def test_a_job_is_over_when_it_is_out_of_the_queue_and_no_accounting_is_asked(queue, tmp_path):
    submitted = queue().submit(job(tmp_path), {})
    assert [submitted.poll() for _ in range(3)] == [None] * 3
    (tmp_path / "down").touch()  # a controller that does not answer has ended no job
    submitted.send_signal(signal.SIGINT)
    assert [submitted.poll() for _ in range(3)] == [None] * 3
    (tmp_path / "down").unlink()
    assert [submitted.poll() for _ in range(3)] == [None, 1, 1]
    assert not (tmp_path / "0").exists()  # it never began


def test_a_job_that_is_queued_anew_by_the_cluster_is_not_over(queue, tmp_path):
    submitted = queue().submit(job(tmp_path), {})
    (tmp_path / "queue").write_text("")
    submitted.poll()
    (tmp_path / "queue").write_text("1\n")
    assert [submitted.poll() for _ in range(3)] == [None] * 3


def test_what_is_left_in_the_queue_is_found_by_the_next_command(queue, tmp_path):
    first = queue()
    for number in range(3):
        first.submit(job(tmp_path, number), {})
    (tmp_path / "queue").write_text("2\n3\n77\n")  # the last is another sweep's
    second = queue()
    found = [second.find(job(tmp_path, number)) for number in range(3)]
    assert found[0] is None
    assert [one.poll() for one in found[1:]] == [None, None]
    found[2].send_signal(signal.SIGINT)
    assert (tmp_path / "queue").read_text() == "2\n77\n"


def test_what_the_cluster_refuses_is_one_line(queue, tmp_path):
    with pytest.raises(UserError, match="hydra/launcher=submitit_slurm: invalid partition"):
        queue("nowhere").submit(job(tmp_path), {})
    (tmp_path / "down").touch()
    with pytest.raises(UserError, match="squeue: Unable to contact slurm controller"):
        queue()


@pytest.mark.parametrize(
    ("shown", "requeues"),
    [("PreemptTime=2026-11-27T10:43:24", True), ("PreemptTime=None", False), ("", False)],
)
def test_a_job_that_saves_while_it_is_preempted_is_queued_again(
    queue, tmp_path, monkeypatch, shown, requeues
):
    (tmp_path / "shown").write_text(f"JobId=7 {shown}\n")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    ended = ["sh", "-c", "exit 143"]
    monkeypatch.setattr(cluster, "start", lambda job, environment: subprocess.Popen(ended))
    assert cluster.Submission(job(tmp_path), {}, str(tmp_path))() == 143
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7\n" if requeues else "")
