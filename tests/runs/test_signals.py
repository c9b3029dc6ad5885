"""Ctrl-C and SIGTERM are reported and obeyed, whatever the main thread is doing."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

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


# One call that does not come back to Python for minutes, as one of a graph with data sinking
LONG_CALL = """
import hashlib, logging
from src.runs.signals import HeldSignals, watch_ctrl_c
logging.basicConfig()
watch_ctrl_c()
with HeldSignals():
    print("calling", flush=True)
    hashlib.pbkdf2_hmac("sha512", b"", b"", 10**9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_inside_a_long_call_the_first_signal_is_told_and_the_second_ends_the_process(number):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    silent = threading.Timer(20, process.kill)  # ends the wait for a line that does not come
    silent.start()
    try:
        process.stdout.readline()
        time.sleep(0.5)  # inside the call
        process.send_signal(number)
        assert (
            f"{number.name}: stopping where it can be saved" in process.stderr.readline().decode()
        )
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
    finally:
        silent.cancel()
        process.kill()
        process.communicate()
