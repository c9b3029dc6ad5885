"""Trains a network: `python -m src.train [overrides]`; `--recipes` lists `conf/experiment`."""

import sys

from omegaconf import DictConfig

from src.cli.command import CONF_DIR, command, save_resolved, show_config
from src.cli.recipes import recipes_table
from src.runs.directory import RunDirectory
from src.utils.console import console


@command("train", resumable=True)
def train(cfg: DictConfig, run: RunDirectory) -> None:
    """Prepares the data if needed, trains, validates, keeps best and last weights."""
    from src.cli import build  # imports MindSpore

    build.setup(cfg)
    data = build.datamodule(cfg)
    cfg = build.resolve_classes(cfg, data)
    network, normalization = build.network(cfg, data.source.generated)
    cfg = build.resolve_normalization(cfg, normalization)
    cfg = build.resolve_class_weights(cfg, data)
    with build.trainer(cfg, run.tracker_ids) as trainer:
        show_config(cfg, run)
        if not run.resumed:
            save_resolved(cfg, run)
        run.update(device=cfg.device.target)
        run.set_trackers(trainer.tracker_ids, trainer.tracker_urls)

        group = trainer.process_group
        batches = data.train_batches(
            normalization, 1, trainer.accumulate, group.rank, group.world_size
        )
        schedule = build.schedule(cfg, trainer, batches)
        steps = build.steps_per_epoch(trainer, batches)
        optimizer = build.optimizer(cfg, network, schedule, steps)
        evaluator = build.evaluator(cfg, network, normalization, data)
        loss, rates = build.loss(cfg), schedule.value
        try:
            state = trainer.fit(
                network, loss, optimizer, batches, evaluator, rates, run.resumed,
                on_ready=lambda: save_resolved(cfg, run),
            )  # fmt: skip
        finally:
            run.update(**trainer.state.summary())  # of an interrupted run, too

        if state.best_evaluation is not None:
            weights = ", averaged weights" if trainer.monitors_ema else ""
            state.best_evaluation.show(f"best: epoch {state.best['epoch']}{weights}, percent")
        run.update(reason=state.stop_reason)


if __name__ == "__main__":
    if "--recipes" in sys.argv[1:]:
        console.print(recipes_table(CONF_DIR / "experiment"))
    else:
        train()
