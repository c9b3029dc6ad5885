"""Jobs of a cluster: what submitit asks of one when its time is up."""

import os
import signal
import subprocess
import sys
import threading
import time

import submitit

from src.sweeps import cluster

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
    monkeypatch.setattr(cluster, "start", lambda job, environment: subprocess.Popen(command))
    submission = cluster.Submission(None, {}, str(tmp_path))
    again = []

    def time_is_up():
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR2)

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
