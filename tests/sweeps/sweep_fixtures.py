"""Jobs whose directories are written by hand."""

import json
from pathlib import Path

import yaml

from src.sweeps.jobs import Job


def job(root: Path, number: int = 0, *overrides: str, common: tuple[str, ...] = ()) -> Job:
    return Job(number, overrides, common, root / str(number))


def finish(
    job: Job, miou: float | None = None, status: str = "completed", reason: str | None = None
) -> Job:
    """Writes what a run of four epochs leaves whose best was the second."""
    job.path.mkdir(parents=True, exist_ok=True)
    best = None if miou is None else {"epoch": 2, "step": 8, "val/miou": miou}
    summary = {
        "status": status, "reason": reason, "command": "train", "task_name": "train",
        "best": best, "last": best, "seconds": 83.4, "versions": {}, "wandb_id": None,
    }  # fmt: skip
    (job.path / "summary.json").write_text(json.dumps(summary))
    trainer = {"max_epochs": 4, "monitor": "val/miou", "monitor_mode": "max"}
    (job.path / "config.resolved.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    return job
