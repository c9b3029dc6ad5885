"""Converts a dataset to MindRecord and reports on it: `python -m src.prepare dataset=…`."""

from omegaconf import DictConfig

from src.cli.command import command
from src.runs.directory import RunDirectory


@command("prepare")
def prepare(cfg: DictConfig, run: RunDirectory) -> None:
    """Fetches or makes the dataset, converts its splits, prints and writes their reports."""
    from src.cli import build  # imports MindSpore
    from src.utils.files import write_json

    data = build.datamodule(cfg)
    reports = data.prepare(*(cfg.splits or (data.train_split, data.val_split)))
    write_json(run.path / "report.json", reports)
    build.show_reports(data, reports)


if __name__ == "__main__":
    prepare()
