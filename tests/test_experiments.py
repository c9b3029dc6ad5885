"""The recipes: each gives its objects, and the numbers of its source arrive in them."""

from pathlib import Path

import mindspore as ms
import pytest

from src.cli import build
from src.cli.command import compose_config
from src.cli.schema import check

CONF = Path(__file__).resolve().parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
HEAVY = ("fcn32s_heavy", "fcn16s_heavy", "fcn8s_heavy")
STEPS = 40


# Optimizer, rate, momentum, weight decay; schedule, warm-up, share of the rate that is left; epochs
RECIPES = {
    "camvid": ("AdamW", 0.002, None, 0.05, "cosine", 200, 0.0, 130),
    "camvid_pretrained": ("AdamW", 0.001, None, 0.05, "cosine", 100, 0.0, 48),
    "demo": ("Momentum", 0.04, 0.9, 1e-4, "cosine", 30, 0.01, 18),
    "fcn16s_heavy": ("Momentum", 1e-12, 0.99, 5e-4, "constant", 0, None, 10),
    "fcn32s_cvpr": ("Momentum", 1e-4, 0.9, 5e-4, "constant", 0, None, 60),
    "fcn32s_heavy": ("Momentum", 1e-10, 0.99, 5e-4, "constant", 0, None, 10),
    "fcn8s_at_once": ("Momentum", 1e-10, 0.99, 5e-4, "constant", 0, None, 29),
    "fcn8s_heavy": ("Momentum", 1e-14, 0.99, 5e-4, "constant", 0, None, 10),
    "fcn8s_resnet50": ("Momentum", 0.02, 0.9, 1e-4, "poly", 0, 0.0, 30),
    "skips_camvid": ("AdamW", 0.002, None, 0.05, "cosine", 100, 0.0, 12),
    "skips_camvid_pretrained": ("AdamW", 0.001, None, 0.05, "cosine", 50, 0.0, 6),
    "tutorial": ("Momentum", 0.05, 0.9, 1e-4, "cosine", 0, 0.01, 1),
    "voc_mini": ("AdamW", 0.001, None, 0.05, "cosine", 200, 0.0, 60),
    "voc_mini_pretrained": ("AdamW", 0.001, None, 0.05, "cosine", 50, 0.0, 20),
    "zoo_fcn8s": ("Momentum", 0.015, 0.9, 1e-4, "cosine", 0, 0.0, 500),
}


def compose(experiment: str):
    cfg = compose_config("train", [f"experiment={experiment}"])
    if cfg.model.backbone.get("width"):
        cfg.model.backbone.width = 0.03
    if cfg.model.backbone.get("pretrained"):
        cfg.model.backbone.pretrained = False
    check(cfg, compose_config("train", []))
    return cfg


def built(cfg, tmp_path):
    """Trainer, network, schedule and optimizer, for epochs of 40 steps."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    cfg.output_dir = str(tmp_path)
    trainer = build.trainer(cfg)
    network = build.bare_network(cfg)
    batches = ms.dataset.NumpySlicesDataset(list(range(STEPS)), shuffle=False).batch(1)
    schedule = build.schedule(cfg, trainer, batches)
    return trainer, network, schedule, build.optimizer(cfg, network, schedule)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_recipe_gives_its_objects(experiment, tmp_path):
    cfg = compose(experiment)
    trainer, network, schedule, optimizer = built(cfg, tmp_path)
    assert len(optimizer.parameters) == len(network.trainable_params())
    assert schedule.value(STEPS * trainer.max_epochs // 2) > 0
    assert cfg.task_name not in ("train", "debug")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_no_recipe_follows_the_defaults_of_training(experiment):
    cfg = compose(experiment)
    optimizer, scheduler, trainer = cfg.optimizer, cfg.scheduler, cfg.trainer
    assert RECIPES[experiment] == (
        optimizer._target_.rpartition(".")[2],
        optimizer.learning_rate,
        optimizer.get("momentum"),
        optimizer.weight_decay,
        scheduler._target_.rpartition(".")[2],
        scheduler.warmup_steps,
        scheduler.get("min_lr_ratio"),
        trainer.max_epochs,
    )
    assert (trainer.gradient_clip, trainer.accumulate) == (None, 1)
    parameters = optimizer.parameters
    assert (parameters.layer_decay, parameters.frozen_backbone_epochs) == (1, 0)
    assert parameters.lr_factors.score == 1


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_recipe_says_its_command_and_what_to_expect(experiment):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines(True) if line.startswith("#")).lower()
    assert f"experiment={experiment}" in header
    assert "verified here" in header or "experiments/results/" in header  # or unverified here


@pytest.mark.parametrize(
    ("experiment", "rate"),
    [*zip(HEAVY, (1e-10, 1e-12, 1e-14), strict=True), ("fcn8s_at_once", 1e-10)],
)
def test_the_original_fcn_is_trained_as_its_authors_did(experiment, rate, tmp_path):
    cfg = compose(experiment)
    _, network, _, optimizer = built(cfg, tmp_path)
    groups = {}
    for parameter, lr, decay in zip(
        optimizer.parameters, optimizer.get_lr(), optimizer.weight_decay, strict=True
    ):
        groups[parameter.name] = float(lr.asnumpy().item()), float(decay)
    assert groups["score_fr.weight"] == pytest.approx((rate, 5e-4))
    assert (
        groups["score_fr.bias"] == groups["backbone.conv1.0.bias"] == pytest.approx((2 * rate, 0))
    )
    assert not any("upscore" in name for name in groups)  # fixed
    assert float(optimizer.momentum.asnumpy()) == pytest.approx(0.99)
    assert build.loss(cfg).summed
    assert (cfg.dataset.batch_size, cfg.dataset.crop_size, cfg.dataset.flip) == (1, None, 0)
    at_once = experiment == "fcn8s_at_once"
    scales = (network.scale_pool4, network.scale_pool3)
    assert scales == ((0.01, 0.0001) if at_once else (1, 1))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_summed_loss_is_not_trained_in_float16(experiment):
    """Its gradients overflow at any loss scale, and no update would be made."""
    cfg = compose_config("train", [f"experiment={experiment}", "device=ascend"])
    check(cfg, compose_config("train", []))
    if cfg.loss.get("reduction") == "sum":
        trainer = cfg.trainer
        assert trainer.amp_dtype == "bfloat16" or trainer.amp_level == "O0"
        assert trainer.loss_scaler is None


def test_each_heavy_stage_starts_from_the_one_before():
    first, second, third = map(compose, HEAVY)
    assert first.model.weights is None
    for before, after in ((first, second), (second, third)):
        assert after.model.weights == f"{before.output_dir}/checkpoints/last.ckpt"
    assert [cfg.model.stride for cfg in (first, second, third)] == [32, 16, 8]


def test_torchvisions_recipe_has_its_auxiliary_head_and_poly_schedule(tmp_path):
    cfg = compose("fcn8s_resnet50")
    _, network, schedule, optimizer = built(cfg, tmp_path)
    rates = optimizer.get_lr()
    rate = {p.name: r.asnumpy().item() for p, r in zip(optimizer.parameters, rates, strict=True)}
    assert rate["auxiliary.scores.weight"] == pytest.approx(0.2)
    assert rate["score_fr.weight"] == pytest.approx(0.02)
    assert schedule.value(STEPS * 15) == pytest.approx(0.02 * 0.5**0.9)
    assert build.loss(cfg).weight == 0.5
    assert network.auxiliary.features[0].weight.shape == (256, 1024, 3, 3)
