"""Trains a network: `python -m src.train [overrides]`."""

from omegaconf import DictConfig

from src.cli import command, save_resolved
from src.engine.rundir import RunDirectory


@command("train")
def train(cfg: DictConfig, run: RunDirectory) -> float | None:
    """Prepares the data if needed, trains, validates, keeps best and last weights.

    Returns the best monitored value, for sweeps.
    """
    from src import build  # brings MindSpore

    build.setup(cfg)
    data = build.datamodule(cfg)
    network = build.network(cfg, data)
    trainer = build.trainer(cfg)
    save_resolved(cfg, run, show=cfg.print_config)
    run.update(device=cfg.device.target)

    batches = data.train_batches(accumulate=trainer.accumulate)
    schedule = build.schedule(cfg, trainer, batches)
    optimizer = build.optimizer(cfg, network, schedule)
    evaluator = build.evaluator(cfg, network, data)
    state = trainer.fit(network, build.loss(cfg), optimizer, batches, evaluator, schedule.value)

    if state.best_evaluation is not None:
        state.best_evaluation.show(f"best: epoch {state.best['epoch']}, percent")
    run.update(best=state.best, last={"epoch": state.epoch, "step": state.step, **state.metrics})
    return state.best.get(trainer.monitor)


if __name__ == "__main__":
    train()
