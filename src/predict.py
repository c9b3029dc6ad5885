"""Segments images and videos: `python -m src.predict ckpt_path=FILE input=FILE_OR_DIR`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from src.cli.command import begin, command
from src.runs.directory import RunDirectory
from src.utils.errors import UserError, nearest

log = logging.getLogger("src.predict")  # __name__ is __main__ here


@command("predict", from_checkpoint=True)
def predict(cfg: DictConfig, run: RunDirectory) -> None:
    """Writes class ids, palette picture and overlay of every image and frame, at its own size."""
    from src.cli import build  # imports MindSpore
    from src.data.images import find_files, read_file
    from src.engine.trainer import Trainer

    build.setup(cfg)
    data = build.datamodule(cfg)
    files = find_files(cfg.input)[: cfg.limit_samples]
    shown = None if cfg.classes is None else class_ids(cfg.classes, data.class_names)
    cfg, network, normalization = build.trained(cfg, data)
    begin(cfg, run)

    output = Path(cfg.output or run.path / "predictions")
    segmenter = build.segmenter(cfg, network, normalization)
    trainer = Trainer(run.path)
    failed = trainer.predict(
        segmenter,
        files,
        read_file,
        output,
        data.palette,
        limit_frames=cfg.limit_samples,
        shown=shown,
        opacity=cfg.alpha,
    )
    log.info("%d of %d files → %s", len(files) - len(failed), len(files), output)
    if failed:
        raise UserError(f"{len(failed)} of {len(files)} files failed: {'; '.join(failed[:3])}")


def class_ids(wanted: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The ids of classes by name.

    Raises:
        UserError: There is no class of a name.
    """
    for name in wanted:
        if name not in class_names:
            raise UserError(
                f"classes={name}: no class of that name{nearest(name, class_names)} (known: "
                f"{', '.join(class_names)})"
            )
    return [class_names.index(name) for name in wanted]


if __name__ == "__main__":
    predict()
