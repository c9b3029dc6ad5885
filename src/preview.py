"""Shows what training sees: `python -m src.preview dataset=… [count=16]`."""

import logging

from omegaconf import DictConfig

from src.cli.command import command
from src.runs.directory import RunDirectory
from src.utils.errors import UserError

log = logging.getLogger("src.preview")  # __name__ is __main__ here


@command("preview")
def preview(cfg: DictConfig, run: RunDirectory) -> None:
    """Writes `preview.png`: the first training samples of epoch 1, augmented, in true colours."""
    from src.cli import build  # imports MindSpore
    from src.visualization.sheets import Classes, Crop, draw_crops

    if cfg.count < 1:
        raise UserError(f"count={cfg.count}: expected at least 1")
    data = build.datamodule(cfg)
    samples = data.train_crops()
    crops = [Crop(*samples[key]) for key in samples.keys(epoch=1)[: cfg.count]]
    path = run.path / "preview.png"
    subtitle = (
        f"{data.train_split} · the first {len(crops)} of {len(samples)} in epoch 1, "
        f"seed {cfg.seed} · left as the network gets it, right with its label"
    )
    classes = Classes(data.class_names, data.palette, data.ignore_index)
    draw_crops(path, crops, classes, "Training samples", subtitle)
    log.info("%d training samples → %s", len(crops), path)


if __name__ == "__main__":
    preview()
