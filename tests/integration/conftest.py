"""Whole commands, run as a person types them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dataset import make_dataset
from tests.integration.forks import Forks

ROOT = Path(__file__).resolve().parents[2]


class Workshop:
    """A working directory with a dataset, in which commands of a project folder are run."""

    def __init__(self, path: Path, project: Path = ROOT) -> None:
        self.path, self.project = path, project
        self.data = path / "shapes_and_discs"
        self._forks = Forks(self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a command."""
        return os.environ | {"PYTHONPATH": str(self.project), "COLUMNS": "160"}

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        """Runs `python -m src.<command>`, expects the exit code, returns what it printed."""
        wanted = (f"src.{command}", arguments, self.path, self.environment)
        found, printed = self._forks.run(*wanted)
        assert found == code, printed
        return printed

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_: object) -> None:
        self._forks.close()

    def train(self, output: str, *arguments: str, code: int = 0, figures: bool = False) -> str:
        """A short training run of a tiny FCN-8s on the dataset; figures take longer than it."""
        return self.run(
            "train",
            "dataset=folder",
            f"dataset.root={self.data}",
            "dataset.crop_size=[64,64]",
            "dataset.batch_size=2",
            "model/backbone=vgg_slim",
            "model.backbone.width=0.0625",
            "trainer.max_epochs=2",
            "print_config=false",
            f"output_dir={output}",
            *([] if figures else ["callbacks.figures=null"]),
            *arguments,
            code=code,
        )


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Iterator[Workshop]:
    path = tmp_path_factory.mktemp("workshop")
    make_dataset(path / "shapes_and_discs")
    with Workshop(path) as workshop:
        yield workshop
