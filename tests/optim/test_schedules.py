"""Schedules against the published formulas, numbers worked out by hand, and their own two faces."""

import math
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from hydra.utils import instantiate
from mindspore import Tensor, nn
from omegaconf import OmegaConf

from src.cli.command import compose_config
from src.optim import schedules
from src.utils.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "scheduler"


def rates(schedule, steps):
    return [schedule.value(step) for step in range(steps)]


def test_cosine_goes_half_a_period_down():
    schedule = schedules.cosine(1.0, total_steps=4)
    root = math.sqrt(0.5)
    assert rates(schedule, 5) == pytest.approx([1, (1 + root) / 2, 0.5, (1 - root) / 2, 0])


def test_the_tutorials_cosine_falls_from_0_05_to_0_0005():
    cfg = compose_config("train", ["experiment=tutorial"])
    schedule = instantiate(cfg.scheduler)(
        learning_rate=cfg.optimizer.learning_rate, total_steps=1000, steps_per_epoch=10
    )
    assert schedule.value(0) == pytest.approx(0.05)
    assert schedule.value(500) == pytest.approx((0.05 + 0.0005) / 2)
    assert schedule.value(999) == pytest.approx(0.0005, rel=1e-3)
    for step in (1, 123, 777):
        published = 0.0005 + 0.5 * (0.05 - 0.0005) * (1 + math.cos(math.pi * step / 1000))
        assert schedule.value(step) == pytest.approx(published)


def test_poly_is_one_minus_progress_to_the_power_of_nine_tenths():
    schedule = schedules.poly(0.02, total_steps=30)
    for step in range(31):
        assert schedule.value(step) == pytest.approx(0.02 * (1 - step / 30) ** 0.9)
    half_left = schedules.poly(1.0, total_steps=2, power=1.0, min_lr_ratio=0.5)
    assert rates(half_left, 3) == [1.0, 0.75, 0.5]


def test_constant_stays():
    assert rates(schedules.constant(0.25, total_steps=3, steps_per_epoch=1), 5) == [0.25] * 5


def test_step_falls_when_an_epoch_of_the_milestones_is_over():
    schedule = schedules.step(1.0, 8, steps_per_epoch=2, milestones=[1, 3], gamma=0.5)
    assert rates(schedule, 8) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_step_falls_by_default_after_six_and_eight_tenths_of_the_run():
    schedule = schedules.step(1.0, total_steps=10, steps_per_epoch=3)
    assert rates(schedule, 10) == pytest.approx([1] * 6 + [0.1] * 2 + [0.01] * 2)


def test_a_milestone_beyond_the_run_is_reported(caplog):
    schedule = schedules.step(1.0, 4, steps_per_epoch=2, milestones=[30])
    assert rates(schedule, 5) == [1] * 5
    assert "epoch 30 lies beyond the run's 2" in caplog.text


def test_warmup_rises_by_equal_steps_and_the_curve_takes_the_rest():
    schedule = schedules.poly(1.0, total_steps=8, warmup_steps=4, power=1.0)
    assert rates(schedule, 9) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_warmup_longer_than_half_of_the_run_is_shortened_to_it(caplog):
    caplog.set_level("INFO")
    assert rates(schedules.constant(1.0, 8, warmup_steps=4), 8) == [0.25, 0.5, 0.75] + [1] * 5
    assert not caplog.records
    assert rates(schedules.constant(1.0, 8, warmup_steps=100), 8) == [0.25, 0.5, 0.75] + [1] * 5
    assert rates(schedules.cosine(1.0, 1, warmup_steps=100), 1) == [1]
    assert [record.getMessage().count("warmup_steps=100") for record in caplog.records] == [1, 1]


def test_after_the_run_the_last_rate_holds():
    schedule = schedules.cosine(1.0, total_steps=4, min_lr_ratio=0.1)
    assert schedule.value(4) == schedule.value(10_000) == pytest.approx(0.1)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_the_graph_and_plain_python_give_the_same_number(name, mode):
    make = instantiate(OmegaConf.load(CONF / f"{name}.yaml"), warmup_steps=7)
    schedule = make(learning_rate=0.05, total_steps=50, steps_per_epoch=5)
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        for step in range(60):
            rate = schedule(Tensor([step], ms.int32))
            assert rate.shape == (1,) and float(rate.asnumpy()[0]) == schedule.value(step)
        assert schedule(Tensor(9, ms.int32)).shape == ()
    finally:
        ms.set_context(mode=before)


def test_an_optimizer_takes_the_rate_of_its_own_step():
    weight = ms.Parameter(Tensor([0.0], ms.float32), name="weight")
    schedule = schedules.step(1.0, 4, steps_per_epoch=1, milestones=[1, 2], gamma=0.5)
    optimizer = nn.Momentum([weight], schedule, momentum=0.0)
    seen = []
    for _ in range(4):
        optimizer((Tensor([-1.0], ms.float32),))
        seen.append(float(weight.asnumpy()[0]))
    assert np.diff([0, *seen]).tolist() == rates(schedule, 4) == [1, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(0.1, 20, warmup_steps=-1), "scheduler.warmup_steps=-1"),
        (lambda: schedules.constant(0.0, 20), "optimizer.learning_rate=0.0"),
        (lambda: schedules.cosine(0.1, 20, min_lr_ratio=2), "scheduler.min_lr_ratio=2"),
        (lambda: schedules.poly(0.1, 20, power=0), "scheduler.power=0"),
        (lambda: schedules.step(0.1, 20, gamma=-1), "scheduler.gamma=-1"),
        (
            lambda: schedules.step(0.1, 20, milestones=[6, 3]),
            r"milestones=\[6, 3\]: expected rising",
        ),
        (lambda: schedules.step(0.1, 20, milestones=[0, 3]), "above 0"),
    ],
)
def test_values_that_cannot_be_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
