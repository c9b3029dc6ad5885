"""SwanLab, by a stand-in that records the calls; its signatures are those of SwanLab 0.10."""

import logging
import sys
import types

import numpy as np
import pytest
from hydra.utils import instantiate

from src.cli.command import compose_config
from src.engine.loggers.swanlab import SwanLabLogger
from src.visualization.sheets import Case, Classes

CLASSES = Classes(("ground", "square"), np.array([[0, 0, 0], [128, 0, 0]], np.uint8))


class Run:
    """A run of SwanLab."""

    id = "d3frrhzt"

    def __init__(self, mode):
        self.mode, self.logged, self.state = mode, [], None

    @property
    def url(self):
        if self.mode != "online":
            raise ValueError("Run url is unavailable")
        return "https://swanlab.cn/@me/p/runs/d3frrhzt"

    def log(self, data, step=None):
        self.logged.append((step, data))

    def finish(self, state="success", error=None):
        self.state = state


@pytest.fixture
def swanlab(monkeypatch):
    """The module; `calls` has the arguments of each `init`."""
    module = types.ModuleType("swanlab")
    module.calls = []

    def init(**arguments):
        module.calls.append(arguments)
        return Run(arguments["mode"])

    module.init = init
    module.Settings = lambda **values: values
    module.Image = lambda data, caption=None: ("image", np.asarray(data).tolist(), caption)
    module.Text = lambda content: ("text", content)
    monkeypatch.setitem(sys.modules, "swanlab", module)
    monkeypatch.delenv("SWANLAB_MODE", raising=False)
    return module


def started(logger, resume_id=None):
    logger.start({"seed": 1}, resume_id)
    return logger


def test_a_run_has_project_group_tags_and_config_and_lies_below_the_run_directory(
    tmp_path, swanlab, monkeypatch
):
    monkeypatch.setenv("SWEEP_GROUP", "sweep 1")
    arguments = ["logger=swanlab", f"output_dir={tmp_path}", "tags=[smoke]"]
    logger = started(instantiate(compose_config("train", arguments).logger.swanlab))
    (call,) = swanlab.calls
    assert (call["project"], call["group"], call["tags"]) == ("fcn-mindspore", "sweep 1", ["smoke"])
    assert (call["mode"], call["id"], call["resume"]) == ("online", None, None)
    assert call["log_dir"] == f"{tmp_path}/swanlog"
    assert call["config"] == {"seed": 1, "run_directory": str(tmp_path)}
    assert call["settings"] == {"interactive": False}
    assert logger.run_id == "d3frrhzt" and logger.url.endswith("/runs/d3frrhzt")


def test_a_resumed_run_goes_on_in_the_same_experiment(tmp_path, swanlab):
    started(SwanLabLogger(tmp_path, "p"), "d3frrhzt")
    assert (swanlab.calls[0]["id"], swanlab.calls[0]["resume"]) == ("d3frrhzt", "allow")


def test_modes_without_a_server_and_a_server_of_ones_own_are_keys(tmp_path, swanlab, monkeypatch):
    assert started(SwanLabLogger(tmp_path, "p", mode="local")).url is None
    started(SwanLabLogger(tmp_path, "p", host="http://host:8000"))
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    started(SwanLabLogger(tmp_path, "p"))
    assert [call["mode"] for call in swanlab.calls] == ["local", "online", "offline"]
    address = {"api_host": "http://host:8000", "web_host": "http://host:8000"}
    assert swanlab.calls[1]["settings"] == {"interactive": False, **address}


@pytest.mark.parametrize(
    "status, state",
    [("completed", "success"), ("interrupted", "aborted"), ("failed", "crashed")],
)
def test_scalars_figures_table_masks_and_best_scores_are_logged_at_their_steps(
    tmp_path, swanlab, status, state
):
    logger = started(SwanLabLogger(tmp_path, "p", mode="local"))
    run = logger._run
    logger.log({"train/loss": 2.5}, epoch=1, step=7)
    logger.log_table("per_class", ["class", "iou"], [["square", 0.5]])
    label, pred = np.array([[1]], np.uint8), np.array([[0]], np.uint8)
    logger.log_masks(
        "predictions", [Case("a", np.full((1, 1, 3), 9, np.uint8), label, pred, "")], CLASSES
    )
    logger.log_best({"val/miou": 0.5})
    logger.close(status)
    assert run.logged == [
        (7, {"epoch": 1, "train/loss": 2.5}),
        (7, {"per_class": ("text", "| class | iou |\n| --- | --- |\n| square | 0.5 |")}),
        (7, {"predictions": [("image", [[[9, 9, 9], [128, 0, 0], [0, 0, 0]]], "a")]}),
        (7, {"best/val/miou": 0.5}),
    ]
    assert run.state == state and logger.run_id is None


@pytest.mark.parametrize("installed", [False, True])
def test_where_swanlab_cannot_be_imported_one_line_names_its_bridge(
    tmp_path, monkeypatch, caplog, installed
):
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    if installed:  # beside a protobuf that its generated code does not fit
        (tmp_path / "swanlab.py").write_text("raise TypeError('Descriptors cannot be created')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "swanlab", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "swanlab", None)
    logger = started(SwanLabLogger(tmp_path, "p"))
    logger.log({"train/loss": 1.0}, epoch=1, step=1)
    logger.close("completed")
    assert logger.run_id is None and len(caplog.records) == 1
    assert f"swanlab convert -t tensorboard --tb-log-dir {tmp_path}/tensorboard" in caplog.text
