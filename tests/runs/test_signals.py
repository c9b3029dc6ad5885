"""Ctrl-C reaches the main thread, whatever it waits for."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAITING = """
import time
from src.runs.signals import watch_ctrl_c
watch_ctrl_c()
print("waiting", flush=True)
time.sleep(600)
"""


def test_ctrl_c_ends_a_wait_in_the_kernel():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=20)[1]
    finally:
        process.kill()
