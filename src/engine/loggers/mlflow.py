"""The log of a run in MLflow."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlsplit

from src.engine.loggers.base import EndStatus, Tracker
from src.engine.loggers.formats import hyperparameters, side_by_side
from src.runs.names import run_name
from src.visualization.sheets import Case, Classes

_LOCAL_SERVER = "http://127.0.0.1:5000"  # where `mlflow server` listens
_MAX_PARAMS = 100  # of one request
_MAX_VALUE = 6000  # characters of a parameter
_STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}  # MLflow's


class MlflowLogger(Tracker):
    """Logs to an MLflow tracking server. MLflow's own variables are obeyed.

    A resumed run goes on in the same MLflow run: what its server has of a step is not sent again.

    Args:
        output_dir: The run directory.
        experiment: Name of the experiment, which is created when absent.
        tracking_uri: Of the server; None takes `MLFLOW_TRACKING_URI`, else port 5000 of this host.
        group: A tag of this name, by which the runs of a sweep are found.
        name: Of the run; None takes the run directory's.
        tags: Each becomes a tag with the value "true".
        timeout: Seconds that a request may take, and it is tried twice, unless
            `MLFLOW_HTTP_REQUEST_TIMEOUT` and `MLFLOW_HTTP_REQUEST_MAX_RETRIES` say otherwise.
    """

    name = "mlflow"
    title = "MLflow"
    repair = "make setup EXTRAS=mlflow, and logger.mlflow.tracking_uri=http://HOST:PORT of a server"

    def __init__(
        self,
        output_dir: str | Path,
        experiment: str,
        tracking_uri: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        timeout: int = 10,
    ) -> None:
        self._output_dir = Path(output_dir)
        self._experiment = experiment
        self._uri = tracking_uri
        self._group = group
        self._run_name = name or run_name(self._output_dir)
        self._tags = tags
        self._timeout = timeout
        self._id: str | None = None
        self._step = 0  # the newest that was logged
        self._sent: dict[str, int] | None = None  # by metric, the newest step that the server has

    def open(self, config: Mapping[str, Any], resume_id: str | None) -> Any:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(self._timeout))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or _LOCAL_SERVER
        client = MlflowClient(tracking_uri=self._uri)
        if resume_id is not None:
            client.update_run(resume_id, "RUNNING")
            self._id, self._sent = resume_id, {}
            return client
        tags = {"run_directory": str(self._output_dir.absolute())}
        tags |= {_key(tag): "true" for tag in self._tags}
        if self._group is not None:
            tags["group"] = self._group
        run = client.create_run(
            _experiment_id(client, self._experiment), tags=tags, run_name=self._run_name
        )
        self._id = run.info.run_id
        params = (
            Param(_key(key), str(value)[:_MAX_VALUE])
            for key, value in hyperparameters(config).items()
        )
        while part := list(islice(params, _MAX_PARAMS)):
            client.log_batch(self._id, params=part)
        return client

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run, None while it is off."""
        return self._id if self._run is not None else None

    @property
    def url(self) -> str | None:
        """The run's page on the server."""
        parts = urlsplit(self._uri or "")
        if self.run_id is None or parts.scheme not in ("http", "https"):
            return None
        place = parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")
        return f"{parts.scheme}://{place}/#/runs/{self.run_id}"

    def log(self, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        self._step = step
        self.send(lambda client: self._log_metrics(client, {"epoch": epoch, **metrics}))

    def log_images(self, paths: Sequence[Path]) -> None:
        def send(client: Any) -> None:
            for path in paths:
                client.log_artifact(self._id, str(path), "figures")

        self.send(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """As a CSV file, which the server's page shows as a table."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows([columns, *rows])
        self.send(lambda client: client.log_text(self._id, text.getvalue(), f"{name}.csv"))

    def log_masks(self, name: str, cases: Sequence[Case], classes: Classes) -> None:
        """One picture a case: image, label and prediction side by side."""

        def send(client: Any) -> None:
            for number, case in enumerate(cases, 1):
                file = f"{name}/{number}_{_key(case.name).replace('/', '_')}.png"
                client.log_image(self._id, side_by_side(case, classes), file)

        self.send(send)

    def log_best(self, scores: Mapping[str, float]) -> None:
        best = {f"best/{key}": value for key, value in scores.items() if key.startswith("val/")}
        self.send(lambda client: self._log_metrics(client, best))

    def close(self, status: EndStatus) -> None:
        self.send(lambda client: client.set_terminated(self._id, _STATUS[status]))
        self._run = None

    def _log_metrics(self, client: Any, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time())
        new = {_key(key): value for key, value in metrics.items()}
        if self._sent is not None:
            new = {key: value for key, value in new.items() if not self._has(client, key)}
        batch = [Metric(key, float(value), now, self._step) for key, value in new.items()]
        if batch:
            client.log_batch(self._id, metrics=batch)

    def _has(self, client: Any, key: str) -> bool:
        """Whether the server has the current step of a metric from before the resume."""
        if key not in self._sent:
            history = client.get_metric_history(self._id, key)
            self._sent[key] = max((metric.step for metric in history), default=0)
        return self._step <= self._sent[key]


def _experiment_id(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another job of the sweep was faster
            if found is None:
                raise
    return found.experiment_id


def _key(text: str) -> str:
    """A name that MLflow takes: letters, digits, blanks and `_ - . / :` alone."""
    return re.sub(r"[^\w/.\- :]", "_", text)
