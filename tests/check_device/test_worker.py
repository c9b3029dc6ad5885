"""Workers, their runner and the command, with operations that are wrong, fail, crash or hang."""

import json
import subprocess
import sys

import pytest

from src.check_device.worker import Worker
from src.cli.command import compose_config
from tests import ROOT
from tests.check_device import operation_fixtures as operations

pytestmark = pytest.mark.slow

COMMAND = """
import sys
from src.check_device import catalogue
from src.check_device.__main__ import check_device
from tests.check_device import operation_fixtures
catalogue.checks = operation_fixtures.checks
check_device()
"""


def test_what_hangs_is_ended_and_the_next_call_gets_a_new_process(tmp_path):
    cfg = compose_config("check_device", ["output_dir=somewhere"])
    with Worker(cfg, tmp_path / "device.log", patience=120) as worker:
        assert worker.call(operations.right).error is None
        worker.patience = 1
        assert "1 s (patience)" in worker.call(operations.hanging).error
        worker.patience = 120
        assert worker.call(operations.right).value["output"][1] == -4


def test_a_wrong_operation_gives_exit_code_1_and_the_others_are_checked(tmp_path):
    arguments = [f"output_dir={tmp_path / 'run'}", f"output={tmp_path / 'found.json'}"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "3 of 6 checks failed" in done.stdout
    report = json.loads((tmp_path / "found.json").read_text())
    found = {check["name"]: check for check in report["checks"]}
    assert {name: check["failed"] for name, check in found.items()} == {
        "mindspore.run_check()": False,
        "wrong": True,
        "raising": True,
        "crashing": True,
        "unsupported": False,
        "right": False,
    }
    assert found["wrong"]["difference"] == 0.25
    assert found["raising"]["error"] == "RuntimeError: no such kernel"
    assert "SIGSEGV" in found["crashing"]["error"]
    assert found["right"]["difference"] == 0
    assert "no such kernel" in (tmp_path / "run" / "device.log").read_text()
    assert report["versions"]["mindspore"] and report["device"]["target"] == "CPU"
