"""Run directories as training writes them, with given numbers."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

CLASSES = ("background", "disc", "<b>box</b>")


def make_run(
    path: Path,
    miou: float = 0.5,
    seed: int = 0,
    stride: int = 8,
    status: str = "completed",
    reason: str | None = None,
    epochs: int = 4,
    command: str = "train",
    **config: Any,
) -> Path:
    """Writes summary, resolved config, metrics and evaluation of a run whose best is its last."""
    path.mkdir(parents=True)
    scores = {"pixel_acc": miou + 0.3, "macc": miou + 0.1, "miou": miou, "fwiou": miou + 0.2}
    best = {"epoch": epochs, "step": 10 * epochs, **{f"val/{k}": v for k, v in scores.items()}}
    done = status == "completed"
    summary = {
        "status": status, "reason": reason, "command": command, "task_name": "train",
        "best": best if done else None, "last": best if done else None, "seconds": 83.5,
        "device": "CPU", "versions": {}, "git_commit": "abc", "wandb_id": None,
    }  # fmt: skip
    (path / "summary.json").write_text(json.dumps(summary))
    resolved = {
        "dataset": {"root": f"{path.parent}/data/shapes", "seed": seed, "crop_size": [64, 64]},
        "model": {"stride": stride, "backbone": {"_target_": "src.models.backbones.vgg.VGG"}},
        "trainer": {"max_epochs": epochs},
        "paths": {"data_dir": f"{path.parent}/data"},
        "logger": {"csv": {"output_dir": str(path)}},
        "output_dir": str(path), "seed": seed, "tags": [], **config,
    }  # fmt: skip
    (path / "config.resolved.yaml").write_text(yaml.safe_dump(resolved))
    with open(path / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/loss", "lr", *(f"val/{k}" for k in scores)])
        for epoch in range(1, epochs + 1):
            part = epoch / epochs
            writer.writerow([epoch, 10 * epoch - 5, 2 - part, 0.1, "", "", "", ""])
            writer.writerow([epoch, 10 * epoch, "", "", *(part * v for v in scores.values())])
    per_class = {
        name: {"iou": None if i == 2 else miou, "acc": miou, "target_pixels": 9, "pred_pixels": 9}
        for i, name in enumerate(CLASSES)
    }
    protocol = {"split": "val", "images": 4}
    evaluation = {**scores, "per_class": per_class, "protocol": protocol}
    if status != "failed":
        (path / "eval.json").write_text(json.dumps(evaluation))
    return path
