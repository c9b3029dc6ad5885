"""The check of a device as it is typed, on the CPU."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_a_short_form_passes_here(workshop):
    screen = workshop.run("check_device", "only=[layers,losses]", "output=short.json")
    assert "installed on platform [CPU] successfully" in screen.splitlines()[1]
    found = json.loads((workshop.path / "short.json").read_text())
    assert not any(check["failed"] for check in found["checks"])
    names = {check["name"] for check in found["checks"]}
    assert {"upsampling ×32, three sizes", "dropout", "loss ohem"} <= names
    assert all(name in screen for name in names)


def test_a_device_that_is_not_here_gets_a_line_and_its_report(workshop):
    screen = workshop.run("check_device", "device=ascend", "output=absent.json", code=1)
    assert "device.target=Ascend" in screen and "Traceback" not in screen
    assert json.loads((workshop.path / "absent.json").read_text())["device"]["target"] == "Ascend"


def test_two_processes_check_what_they_compute_together(workshop):
    workshop.run("distributed", "2", "check_device", "output=together.json")
    found = json.loads((workshop.path / "together.json").read_text())
    checks = {check["name"]: check for check in found["checks"]}
    assert not any(check["failed"] for check in found["checks"])
    assert checks["training step, shared"]["difference"] < 1e-5
