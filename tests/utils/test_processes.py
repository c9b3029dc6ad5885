"""Processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has it")
def test_ranks_end_with_their_launcher_even_if_it_is_killed():
    # Waits for its ranks, each of which sleeps
    launcher = "from src.distributed.__main__ import Job; Job(2, ['sleep', '600']).run()"
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT, env=dict(os.environ))
    try:
        while len(ranks := psutil.Process(process.pid).children()) < 3:  # and the scheduler
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert psutil.wait_procs(ranks, timeout=10)[1] == []
    finally:
        process.kill()
