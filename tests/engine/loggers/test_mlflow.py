"""MLflow: what a run logs is read back by MLflow's own client; a bad server stops nothing."""

import csv
import io
import logging
import math
import os
import socket
import time

import numpy as np
import pytest
from PIL import Image

from src.engine.loggers.mlflow import MlflowLogger
from src.visualization.sheets import Case, Classes

pytest.importorskip("mlflow")
CONFIG = {"optimizer": {"learning_rate": 0.1}, "seed": 3, "tags": []}


@pytest.fixture
def uri(tmp_path, monkeypatch):
    """Of a store in files; `make test-mlflow` has a server's."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file://{tmp_path}/store"


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name in ("TRACKING_URI", "HTTP_REQUEST_TIMEOUT", "HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(f"MLFLOW_{name}", "x")  # so that what a logger sets is undone
        monkeypatch.delenv(f"MLFLOW_{name}")


def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def started(logger, resume_id=None):
    logger.start(CONFIG, resume_id)
    return logger


def history(uri, run_id, key):
    found = client(uri).get_metric_history(run_id, key)
    return [(metric.step, metric.value) for metric in found]


def test_scalars_hyperparameters_tags_and_best_scores_are_found_in_mlflow(tmp_path, uri):
    logger = MlflowLogger(tmp_path / "run", "scalars", uri, group="sweep 1", tags=["smoke", "a,b"])
    run_id = started(logger).run_id
    logger.log({"train/loss": 2.5, "val/iou/a, b": 0.25}, epoch=1, step=4)
    logger.log({"train/loss": 1.5, "val/miou": math.nan}, epoch=2, step=8)
    logger.log_best({"val/miou": 0.5})
    logger.close("completed")
    assert logger.run_id is None
    run = client(uri).get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert client(uri).get_experiment(run.info.experiment_id).name == "scalars"
    assert run.data.params == {"optimizer.learning_rate": "0.1", "seed": "3"}
    expected = {"group": "sweep 1", "smoke": "true", "a_b": "true"}
    assert run.data.tags.items() >= expected.items()
    assert run.data.tags["run_directory"] == str(tmp_path / "run")
    assert history(uri, run_id, "train/loss") == [(4, 2.5), (8, 1.5)]
    assert history(uri, run_id, "epoch") == [(4, 1), (8, 2)]
    assert history(uri, run_id, "val/iou/a_ b") == [(4, 0.25)]
    assert history(uri, run_id, "best/val/miou") == [(8, 0.5)]
    ((step, value),) = history(uri, run_id, "val/miou")
    assert step == 8 and math.isnan(value)


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_with_each_step_once(tmp_path, uri):
    first = started(MlflowLogger(tmp_path, "resumed", uri))
    run_id = first.run_id
    for step in (1, 2):
        first.log({"train/loss": 4.0 / step}, epoch=1, step=step)
    first.close("interrupted")
    assert client(uri).get_run(run_id).info.status == "KILLED"
    second = started(MlflowLogger(tmp_path, "resumed", uri), run_id)
    assert second.run_id == run_id
    assert client(uri).get_run(run_id).info.status == "RUNNING"
    # From the state of step 1: step 2 again, with what the first was stopped before
    second.log({"train/loss": 2.0}, epoch=1, step=2)
    second.log({"val/miou": 0.5}, epoch=1, step=2)
    second.log({"train/loss": 1.0}, epoch=2, step=3)
    second.close("completed")
    assert history(uri, run_id, "train/loss") == [(1, 4.0), (2, 2.0), (3, 1.0)]
    assert history(uri, run_id, "val/miou") == [(2, 0.5)]
    assert client(uri).get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    "status, mlflows",
    [("completed", "FINISHED"), ("interrupted", "KILLED"), ("failed", "FAILED")],
)
def test_how_a_run_ended_is_its_status_in_mlflow(tmp_path, uri, status, mlflows):
    logger = started(MlflowLogger(tmp_path, "ended", uri))
    run_id = logger.run_id
    logger.close(status)
    assert client(uri).get_run(run_id).info.status == mlflows


def test_figures_class_table_and_masks_are_artifacts(tmp_path, uri):
    Image.new("RGB", (8, 6), (1, 2, 3)).save(tmp_path / "curves.png")
    label, pred = np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8)
    classes = Classes(("ground", "square"), np.array([[0, 0, 0], [128, 0, 0]], np.uint8))
    logger = started(MlflowLogger(tmp_path, "artifacts", uri))
    run_id = logger.run_id
    logger.log_images([tmp_path / "curves.png"])
    logger.log_table("per_class", ["class", "iou"], [["a, b", 0.5], ["square", math.nan]])
    case = Case("val/a b", np.full((1, 2, 3), 7, np.uint8), label, pred, "")
    logger.log_masks("predictions", [case], classes)
    logger.close("completed")

    def bytes_of(path):
        return open(client(uri).download_artifacts(run_id, path, str(tmp_path)), "rb").read()

    assert bytes_of("figures/curves.png") == (tmp_path / "curves.png").read_bytes()
    table = list(csv.reader(io.StringIO(bytes_of("per_class.csv").decode())))
    assert table == [["class", "iou"], ["a, b", "0.5"], ["square", "nan"]]
    pixels = np.array(Image.open(io.BytesIO(bytes_of("predictions/1_val_a b.png"))))
    assert pixels.tolist() == [[[7] * 3, [7] * 3, [0] * 3, [128, 0, 0], [0] * 3, [0] * 3]]


def test_mlflows_own_variables_are_obeyed(tmp_path, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    logger = started(MlflowLogger(tmp_path, "variables"))
    assert client(uri).get_run(logger.run_id).data.params["seed"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    logger.close("completed")


def test_the_page_of_a_run_is_without_the_servers_password():
    logger = MlflowLogger("run", "x", "https://me:secret@host:81/sub/")
    logger._run, logger._id = object(), "abc"
    assert logger.url == "https://host:81/sub/#/runs/abc"


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_is_gone_or_never_answers_costs_seconds(tmp_path, caplog, answers, monkeypatch):  # fmt: skip
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if not answers:
            listener.close()
            port = 9  # the port of discard, where nobody listens
        else:
            port = listener.getsockname()[1]
        begin = time.monotonic()
        logger = started(MlflowLogger(tmp_path, "x", f"http://127.0.0.1:{port}", timeout=1))
        logger.log({"train/loss": 1.0}, epoch=1, step=1)
        logger.close("completed")
    assert time.monotonic() - begin < 15
    assert logger.run_id is None and logger.url is None
    assert caplog.text.count("MLflow is off for this run") == 1
