"""Parameter groups and AdamW: single steps worked out by hand."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.cli import build
from src.cli.command import compose_config
from src.optim.optimizers import AdamW, Momentum, kinds_of, parameter_groups
from src.utils.errors import UserError

NAMES = (
    "backbone.conv1.weight",
    "backbone.conv1.bias",
    "backbone.norm1.gamma",
    "backbone.norm1.beta",
    "score_fr.weight",
    "score_fr.bias",
    "upscore8.weight",
)


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    before = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield
    ms.set_context(mode=before)


class Halving(nn.learning_rate_schedule.LearningRateSchedule):
    """0.1, 0.05, 0.05 …"""

    def construct(self, step):
        return 0.1 / (1 + (step > 0).astype(ms.float32))


def params(names=NAMES, start=1.0):
    return [Parameter(Tensor([start, -start], ms.float32), name=name) for name in names]


def after(optimizer, parameters, gradient=0.5, steps=1):
    """First element of each parameter by name, after steps with one gradient everywhere."""
    for _ in range(steps):
        optimizer(tuple(Tensor([gradient, gradient], ms.float32) for _ in parameters))
    return {p.name: float(p.asnumpy()[0]) for p in parameters}


def test_a_parameter_may_be_of_several_kinds():
    kinds = [kinds_of(name) for name in NAMES]
    assert kinds[:2] == [{"backbone"}, {"backbone", "bias"}]
    assert kinds[2] == kinds[3] == {"backbone", "norm"}
    assert kinds[4:] == [{"score"}, {"score", "bias"}, {"upsampling"}]
    assert kinds_of("upscore_pool4.weight") == {"upsampling"}
    assert kinds_of("score_pool3.weight") == {"score"}


def test_one_momentum_step_with_twice_the_rate_and_no_decay_on_biases(mode):
    p = params()
    groups = parameter_groups(p, Halving(), 0.2, lr_factors={"bias": 2, "upsampling": 0})
    optimizer = Momentum(groups, Halving(), momentum=0.9, weight_decay=0.2)
    new = after(optimizer, p)
    # weight - rate × (gradient + decay × weight), from weight 1, gradient 0.5, rate 0.1
    assert new["backbone.conv1.weight"] == pytest.approx(1 - 0.1 * (0.5 + 0.2 * 1))
    assert new["backbone.conv1.bias"] == pytest.approx(1 - 0.2 * 0.5)
    assert new["backbone.norm1.gamma"] == new["backbone.norm1.beta"] == pytest.approx(1 - 0.1 * 0.5)
    assert new["score_fr.bias"] == pytest.approx(1 - 0.2 * 0.5)
    assert new["upscore8.weight"] == 1
    # The second step has half the rate: velocity 0.9 × 0.5 + 0.5, for biases at 2 × 0.05
    assert after(optimizer, p)["score_fr.bias"] == pytest.approx(0.9 - 2 * 0.05 * 0.95)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_momentum_takes_the_decay_as_part_of_the_gradient(mode, momentum):
    p = params()
    optimizer = Momentum(parameter_groups(p, 0.1, 0.2), 0.1, momentum, weight_decay=0.2)
    new = after(optimizer, p, steps=4)
    for name, decay in (("score_fr.weight", 0.2), ("score_fr.bias", 0)):
        weight, velocity = 1.0, 0.0
        for _ in range(4):
            velocity = momentum * velocity + 0.5 + decay * weight
            weight -= 0.1 * velocity
        assert new[name] == pytest.approx(weight, rel=1e-6)


def test_factors_of_all_kinds_of_a_parameter_are_multiplied():
    p = params()
    factors = {"backbone": 0.1, "bias": 2, "score": 10}
    optimizer = nn.SGD(parameter_groups(p, 1.0, 0.0, lr_factors=factors), 1.0)
    moved = {name: 1 - value for name, value in after(optimizer, p).items()}
    assert moved["backbone.conv1.weight"] == pytest.approx(0.1 * 0.5)
    assert moved["backbone.conv1.bias"] == pytest.approx(0.2 * 0.5)
    assert moved["score_fr.weight"] == pytest.approx(10 * 0.5)
    assert moved["score_fr.bias"] == pytest.approx(20 * 0.5)
    assert moved["upscore8.weight"] == pytest.approx(0.5)


def test_norms_and_biases_are_decayed_when_that_is_asked_for():
    p = params()
    groups = parameter_groups(p, 0.1, 0.2, no_decay_on_norm_and_bias=False)
    new = after(nn.Momentum(groups, 0.1, momentum=0.9, weight_decay=0.2), p)
    assert list(new.values()) == pytest.approx([1 - 0.1 * 0.7] * len(p))


def test_by_default_a_network_without_biases_is_trained_as_the_tutorials():
    names = [name for name in NAMES if not name.endswith("bias")]
    ours, tutorial = params(names), params(names)
    optimizer = nn.Momentum(parameter_groups(ours, 0.1, 0.2), 0.1, 0.9, weight_decay=0.2)
    plain = nn.Momentum(tutorial, 0.1, 0.9, weight_decay=0.2)
    assert after(optimizer, ours, steps=3) == after(plain, tutorial, steps=3)


def test_the_optimizer_keeps_the_order_of_the_network():
    p = params()
    groups = parameter_groups(p, 0.1, 0.2, lr_factors={"bias": 2, "score": 3})
    assert [x.name for x in nn.Momentum(groups, 0.1, 0.9).parameters] == list(NAMES)


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match="lr_factors.biases: unknown kind.*did you mean 'bias'"):
        parameter_groups(params(), 0.1, 0.0, lr_factors={"biases": 2})
    with pytest.raises(UserError, match="bias=-1: expected a factor of at least 0"):
        parameter_groups(params(), 0.1, 0.0, lr_factors={"bias": -1})


def test_a_factor_for_parameters_the_network_does_not_have_is_reported(caplog):
    parameter_groups(params(["score_fr.weight"]), 0.1, 0.0, lr_factors={"bias": 2, "norm": 1})
    assert "lr_factors.bias=2 has no effect" in caplog.text
    assert "norm" not in caplog.text


def adamw(weight, gradients, rates, decay, beta1=0.9, beta2=0.99, eps=1e-8):
    """Algorithm 2 of Loshchilov & Hutter 2019, its schedule multiplier in the rates."""
    m = v = np.zeros_like(weight)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        step = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        weight = weight - rate * step - rate * decay * weight
    return weight


def test_adamw_follows_the_published_algorithm(mode):
    rng = np.random.default_rng(0)
    p = params(["score_fr.weight", "score_fr.bias"])
    groups = parameter_groups(p, Halving(), 0.3, lr_factors={"bias": 2})
    optimizer = AdamW(groups, Halving(), beta2=0.99, weight_decay=0.3)
    gradients = rng.normal(size=(4, 2)).astype(np.float32)
    for gradient in gradients:
        optimizer((Tensor(gradient), Tensor(gradient)))
    rates = np.array([0.1, 0.05, 0.05, 0.05])
    start = np.array([1.0, -1.0])
    expected = adamw(start, gradients, rates, decay=0.3)
    np.testing.assert_allclose(p[0].asnumpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(p[1].asnumpy(), adamw(start, gradients, 2 * rates, 0), rtol=1e-5)


def test_the_first_step_of_adamw_is_the_rate_whatever_the_gradient():
    p = params()
    groups = parameter_groups(p, 0.1, 0.5)
    new = after(AdamW(groups, 0.1, weight_decay=0.5), p, gradient=123.0)
    assert new["backbone.norm1.gamma"] == pytest.approx(1 - 0.1)
    assert new["score_fr.weight"] == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1)


def test_values_that_an_optimizer_refuses_are_a_line():
    cfg = compose_config("train", ["optimizer=sgd", "optimizer.nesterov=true"])
    network = build.bare_network(compose_config("train", ["model/backbone=compact"]))
    with pytest.raises(UserError, match=r"optimizer \(SGD\): .*nesterov"):
        build.optimizer(cfg, network, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("make", [AdamW, Momentum], ids=["adamw", "momentum"])
def test_a_network_may_have_more_parameters_than_the_compiler_nests_calls(make):
    p = params([f"weight{i}" for i in range(501)])
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        new = after(make(p, 0.1, weight_decay=0.5), p, gradient=0.0)
    finally:
        ms.set_context(mode=before)
    assert new == pytest.approx(dict.fromkeys(new, 0.95))  # the decay alone
