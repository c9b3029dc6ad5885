"""What the launcher tells the processes that it starts, and that it lets them save."""

import json
import signal
import subprocess
import sys
import time

import pytest

from src.distributed.__main__ import Job
from tests import ROOT

NAMES = ("MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID", "RANK_SIZE", "RANK_ID", "DEVICE_ID")
WRITE = """
import json, os, sys
role = os.environ["MS_ROLE"] + os.environ.get("RANK_ID", "")
json.dump(dict(os.environ), open(f"{sys.argv[1]}/{role}", "w"))
"""


def test_each_rank_gets_the_variables_of_msrun_a_card_of_its_own_among_them(tmp_path):
    assert Job(3, [sys.executable, "-c", WRITE, str(tmp_path)]).run() == 0
    for rank in range(3):
        variables = json.loads((tmp_path / f"MS_WORKER{rank}").read_text())
        own = [variables[name] for name in NAMES]
        assert own == ["MS_WORKER", "3", str(rank), "3", str(rank), str(rank)]
        assert variables["MS_SCHED_HOST"] == "127.0.0.1" and variables["MS_SCHED_PORT"].isdigit()


# Rank 0 saves where it is asked to stop; the others, as ranks do, leave that to it and wait
RANK = """
import os, pathlib, signal, sys, time
here, me = pathlib.Path(sys.argv[1]), os.environ["MS_ROLE"] + os.environ.get("RANK_ID", "")
def save(number, frame):
    (here / "saved").write_text(signal.Signals(number).name)
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save if me == "MS_WORKER0" else signal.SIG_IGN)
(here / me).touch()
time.sleep(600)
"""
LAUNCH = """
import sys
from src.distributed.__main__ import Job
sys.exit(Job(2, [sys.executable, "-c", sys.argv[1], sys.argv[2]]).run())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_main_process_save_before_all_end(tmp_path, number):
    """msrun kills its workers instead."""
    job = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, RANK, str(tmp_path)], cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        started = [tmp_path / name for name in ("MS_SCHED", "MS_WORKER0", "MS_WORKER1")]
        deadline = time.monotonic() + 60
        while not all(path.exists() for path in started):
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        job.send_signal(number)
        assert job.wait(timeout=20) == 128 + number
    finally:
        job.kill()
        job.wait()
    assert (tmp_path / "saved").read_text() == number.name
