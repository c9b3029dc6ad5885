"""The tests of MLflow against a tracking server with SQLite (`make test-mlflow`, a minute or two).

The server has an environment of its own, made below a temporary folder; MLFLOW=/path/to/mlflow
takes an installed one. No part of the suite: pytest does not collect a file of this name unless it
is asked to.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests import ROOT
from tests.engine.loggers.test_mlflow import *  # noqa: F403
from tests.integration.dataset import make_dataset

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Of a server of this machine's own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        os.environ.get("MLFLOW") or installed(folder / "venv"), "server", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def installed(venv):
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", "mlflow>=3"], check=True)
    return str(venv / "bin" / "mlflow")


def wait(address, server):
    for _ in range(120):
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise TimeoutError(address)


def test_a_training_run_is_found_on_the_server_as_its_csv_has_it(uri, tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "src.train", "dataset=folder",
        f"dataset.root={make_dataset(tmp_path / 'data')}", "dataset.crop_size=[64,64]",
        "dataset.batch_size=2", "model=fcn32s", "model/backbone=compact",
        "model.backbone.channels=[4,4,4,4,4]", "device.mode=pynative", "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1", "print_config=false", "logger=mlflow",
        "logger.mlflow.experiment=trained", f"output_dir={run}",
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "SWEEP_GROUP": "seeds"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "MLflow is off" not in done.stdout + done.stderr, done.stderr
    summary = json.loads((run / "summary.json").read_text())
    run_id = summary["mlflow_id"]
    assert summary["mlflow_url"] == f"{uri}/#/runs/{run_id}"
    found = client(uri).get_run(run_id)  # noqa: F405
    assert found.info.status == "FINISHED" and found.data.tags["group"] == "seeds"
    assert found.data.params["trainer.max_epochs"] == "2"
    assert found.data.metrics["best/val/miou"] == summary["best"]["val/miou"]
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))  # noqa: F405
    for key in ("train/loss", "val/miou", "lr"):
        logged = [(int(row["step"]), float(row[key])) for row in rows if row[key]]
        assert logged and history(uri, run_id, key) == logged  # noqa: F405
    artifacts = {file.path for file in client(uri).list_artifacts(run_id)}  # noqa: F405
    assert artifacts == {"figures", "per_class.csv", "predictions"}
