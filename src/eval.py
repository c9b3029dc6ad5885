"""Evaluates a checkpoint: `python -m src.eval ckpt_path=FILE [split=val] [dataset.root=…]`."""

import logging

from omegaconf import DictConfig

from src.cli.command import begin, command
from src.runs.directory import RunDirectory

log = logging.getLogger("src.eval")  # __name__ is __main__ here


@command("eval", from_checkpoint=True)
def evaluate(cfg: DictConfig, run: RunDirectory) -> None:
    """Evaluates at native resolution, prints the tables, writes `eval.json`."""
    from src.cli import build  # imports MindSpore
    from src.engine.callbacks.figures import evaluation_figures
    from src.engine.trainer import Trainer
    from src.runs.names import weights_name

    build.setup(cfg)
    data = build.datamodule(cfg)
    cfg, network, normalization = build.trained(cfg, data)
    begin(cfg, run)

    trainer = Trainer(run.path, limit_val_batches=cfg.limit_samples)
    evaluator = build.evaluator(cfg, network, normalization, data, cfg.split)
    evaluation = trainer.evaluate(evaluator)
    if run.is_main_process:
        evaluation.save(run.path / "eval.json")
        name = weights_name(cfg.ckpt_path)
        if cfg.per_image:
            path = run.path / "per_image.csv"
            worst = ", ".join(image.name for image in evaluation.save_images(path)[:4])
            log.info("scores by image, the worst first (%s) → %s", worst, path)
        evaluation_figures(evaluator, evaluation, run.path / "figures", name)
        log.info("eval.json and figures → %s", run.path)
    evaluation.show(f"split {evaluation.protocol['split']}, percent")


if __name__ == "__main__":
    evaluate()
