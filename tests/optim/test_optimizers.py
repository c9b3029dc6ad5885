"""Parameter groups and AdamW: single steps worked out by hand."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.cli import build
from src.cli.command import CONF_DIR, compose_config
from src.engine.checkpoint import load_state, save_state
from src.engine.train_step import TrainStep
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.models.backbones.compact import Compact
from src.models.fcn import FCN
from src.optim.optimizers import (
    SGD,
    AdamW,
    Momentum,
    backbone_layers,
    kinds_of,
    parameter_groups,
)
from src.optim.schedules import Schedule
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


@pytest.mark.parametrize("optimizer", [AdamW, Momentum, SGD])
def test_a_rate_is_computed_once_for_all_parameters_that_have_it(optimizer):
    """One computation a parameter let compilation take 11 times as long for 400 of them."""
    calls = []

    class Counted(Halving):
        def construct(self, step):
            calls.append(step)
            return super().construct(step)

    schedule, p = Counted(), params()
    groups = parameter_groups(p, schedule, 0.0, lr_factors={"bias": 2, "upsampling": 0})
    rates = optimizer(groups, schedule, weight_decay=0.0).get_lr()
    expected = [0.0 if "upscore" in n else 0.2 if n.endswith("bias") else 0.1 for n in NAMES]
    assert [float(rate) for rate in rates] == pytest.approx(expected)
    assert len(calls) == 3


def test_sgd_with_rates_by_group_moves_as_mindspores(mode):
    ours, plain = params(), params()
    moved = []
    for p, kind in ((ours, SGD), (plain, nn.SGD)):
        groups = parameter_groups(p, Halving(), 0.2, lr_factors={"bias": 2, "score": 0.3})
        moved.append(after(kind(groups, Halving(), momentum=0.9, nesterov=True), p, steps=3))
    assert moved[0] == pytest.approx(moved[1], rel=1e-6)


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


LAYERED = {  # dimensions by name, in the order of the network
    "backbone.stem.weight": 4,
    "backbone.stem_norm.gamma": 1,
    "backbone.stage1.0.conv1.weight": 4,
    "backbone.stage1.0.norm1.beta": 1,
    "backbone.stage1.0.down_sample.0.weight": 4,
    "backbone.stage1.1.norm1.gamma": 1,
    "backbone.stage1.1.conv1.weight": 4,
    "backbone.stage2.3.weight": 4,
    "backbone.stage2.4.gamma": 1,
    "score_fr.weight": 4,
    "auxiliary.0.weight": 4,
}


def layered():
    return [Parameter(Tensor(np.ones((1,) * n), ms.float32), name) for name, n in LAYERED.items()]


def rates(groups):
    """Rate of each parameter by name, where that of the optimizer is 1."""
    return {p.name: group.get("lr", 1.0) for group in groups[:-1] for p in group["params"]}


def test_a_layer_is_a_block_or_a_convolution_with_the_norm_that_follows():
    assert list(backbone_layers(layered()).values()) == [1, 1, 2, 2, 2, 3, 3, 4, 4]


def test_the_rate_is_multiplied_once_for_each_layer_from_the_last_one_down():
    found = rates(parameter_groups(layered(), 1.0, 0.0, layer_decay=0.5))
    factors = [1 / 16] * 2 + [1 / 8] * 3 + [1 / 4] * 2 + [1 / 2] * 2 + [1] * 2
    assert found == dict(zip(LAYERED, factors, strict=True))


def test_layer_decay_is_multiplied_with_the_factors_of_kinds():
    kinds = {"backbone": 0.1, "norm": 3, "score": 7}
    found = rates(parameter_groups(layered(), 2.0, 0.0, lr_factors=kinds, layer_decay=0.5))
    assert found["backbone.stage1.1.conv1.weight"] == pytest.approx(2 * 0.1 / 4)
    assert found["backbone.stage1.1.norm1.gamma"] == pytest.approx(2 * 0.1 * 3 / 4)
    assert found["score_fr.weight"] == pytest.approx(14)


def test_layer_decay_scales_a_schedule(mode):
    p = layered()
    optimizer = Momentum(parameter_groups(p, Halving(), 0.0, layer_decay=0.5), Halving(), 0.0)
    optimizer(tuple(Tensor(np.ones(x.shape), ms.float32) for x in p))
    moved = [1 - x.asnumpy().item() for x in p]
    factors = [1 / 16] * 2 + [1 / 8] * 3 + [1 / 4] * 2 + [1 / 2] * 2 + [1] * 2
    assert moved == pytest.approx([0.1 * factor for factor in factors], rel=1e-5)


def test_without_layer_decay_and_freezing_there_are_the_decayed_and_the_others_at_one_rate():
    groups = parameter_groups(params(), Halving(), 0.2)
    assert [sorted(group) for group in groups] == [["params", "weight_decay"]] * 2 + [
        ["order_params"]
    ]
    assert [[p.name for p in group["params"]] for group in groups[:-1]] == [
        ["backbone.conv1.weight", "score_fr.weight", "upscore8.weight"],
        ["backbone.conv1.bias", "backbone.norm1.gamma", "backbone.norm1.beta", "score_fr.bias"],
    ]


# Blocks, and convolutions outside of these: of a ResNet-50, the first one and 16 blocks
LAYERS = {
    "vgg11": 10, "vgg13": 12, "vgg16": 15, "vgg16_plain": 15, "vgg19": 18, "vgg_slim": 15,
    "compact": 11, "pyramid": 12, "pyramid_detail": 15, "resnet18": 9, "resnet34": 17,
    "resnet50": 17, "resnet101": 34, "mobilenet_v3_small": 13, "mobilenet_v3_large": 17,
    "efficientnet_b0": 18, "efficientnet_lite0": 17, "efficientnet_lite1": 22,
    "efficientnet_lite2": 22, "convnext_tiny": 22, "hrnet_w32": 22,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", sorted(path.stem for path in (CONF_DIR / "model" / "backbone").glob("*.yaml"))
)
def test_in_every_backbone_the_rate_rises_from_the_image_to_the_head(backbone):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    width = ["model.backbone.width=0.03"] if backbone.startswith("vgg") else []
    network = build.bare_network(compose_config("train", [f"model/backbone={backbone}", *width]))
    found = rates(parameter_groups(network.trainable_params(), 1.0, 0.0, layer_decay=0.9))
    own = {name: rate for name, rate in found.items() if "backbone" in kinds_of(name)}
    assert {rate for name, rate in found.items() if name not in own} == {1}
    depth = LAYERS[backbone]
    assert sorted(set(own.values())) == pytest.approx([0.9**k for k in range(depth, 0, -1)])

    # In the order in which they are computed
    computed = []
    for _, cell in network.backbone.cells_and_names():
        names = [p.name for p in cell.get_parameters(expand=False) if p.name in own]
        if names:
            cell.register_forward_pre_hook(lambda cell, inputs, names=names: computed.extend(names))
    network.backbone(ms.ops.zeros((1, 3, 64, 64)))
    assert set(computed) == set(own)
    order = [own[name] for name in computed]
    assert order == sorted(order) and order[-1] == 0.9


def test_a_layer_decay_or_a_number_of_frozen_epochs_that_cannot_be_is_refused():
    for value in (0, 1.5):
        with pytest.raises(UserError, match=f"layer_decay={value}: expected .* as 0.9"):
            parameter_groups(params(), 0.1, 0.0, layer_decay=value)
    with pytest.raises(UserError, match="frozen_backbone_epochs=-1: expected .* 0 or more"):
        parameter_groups(params(), 0.1, 0.0, frozen_backbone_epochs=-1)


def test_keys_of_a_backbone_that_is_not_trained_are_reported(caplog):
    head = params(["score_fr.weight"])
    parameter_groups(head, 0.1, 0.0, layer_decay=0.9, frozen_backbone_epochs=1)
    assert "layer_decay has no effect" in caplog.text
    assert "frozen_backbone_epochs has no effect" in caplog.text


@pytest.mark.parametrize("rate", [0.1, Schedule([0.1])], ids=["float", "schedule"])
def test_momentum_begins_anew_when_the_backbone_is_released(mode, rate):
    p = params(["backbone.conv1.weight", "score_fr.weight"])
    groups = parameter_groups(p, rate, 0.2, frozen_backbone_epochs=2, steps_per_epoch=2)
    optimizer = Momentum(groups, rate, momentum=0.9, weight_decay=0.2)
    for step in range(6):
        weight = after(optimizer, p)["backbone.conv1.weight"]
        if step < 4:
            assert weight == 1
    # Velocity 0.5 + 0.2 × 1, then 0.9 times that and the next gradient and decay
    first = 1 - 0.1 * 0.7
    assert weight == pytest.approx(first - 0.1 * (0.9 * 0.7 + 0.5 + 0.2 * first))
    head, velocity = 1.0, 0.0
    for _ in range(6):
        velocity = 0.9 * velocity + 0.5 + 0.2 * head
        head -= 0.1 * velocity
    assert p[1].asnumpy()[0] == pytest.approx(head)


def test_the_first_update_of_adamw_is_of_the_usual_size_when_the_backbone_is_released(mode):
    p = params(["backbone.conv1.weight"])
    groups = parameter_groups(p, 0.1, 0.5, frozen_backbone_epochs=1, steps_per_epoch=20)
    optimizer = AdamW(groups, 0.1, weight_decay=0.5)
    assert after(optimizer, p, steps=20)["backbone.conv1.weight"] == 1
    assert after(optimizer, p)["backbone.conv1.weight"] == pytest.approx(1 * (1 - 0.05) - 0.1)


def training(make, frozen_backbone_epochs=2):
    """Steps of a small FCN whose backbone is frozen for epochs of three steps."""
    ms.set_seed(0)
    network = FCN(Compact((4, 4, 6, 6, 8)), num_classes=3)
    rng = np.random.default_rng(2)
    for name in ("score_fr", "score_pool4", "score_pool3"):  # zeros would pass no gradient on
        weight = getattr(network, name).weight
        weight.set_data(Tensor(rng.normal(size=weight.shape).astype(np.float32)))
    groups = parameter_groups(
        network.trainable_params(), Halving(), 0.01,
        frozen_backbone_epochs=frozen_backbone_epochs, steps_per_epoch=3,
    )  # fmt: skip
    return TrainStep(network, CrossEntropy(), make(groups, Halving())).set_train()


def values(step):
    return {p.name: p.asnumpy().copy() for p in step.network.get_parameters()}


def train(step, steps):
    for _ in range(steps):
        rng = np.random.default_rng(int(step.optimizer.global_step.asnumpy().item()))
        images = Tensor(rng.normal(size=(2, 3, 32, 32)).astype(np.float32))
        step(images, Tensor(rng.integers(0, 3, (2, 32, 32)).astype(np.int32)))


MAKES = {
    "adamw": AdamW,
    "momentum": lambda groups, rate: Momentum(groups, rate, 0.9),
    "sgd": lambda groups, rate: SGD(groups, rate, 0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKES)
def test_a_frozen_backbone_keeps_every_bit_until_its_epochs_are_over(make, mode):
    step = training(MAKES[make])
    start = values(step)
    moved = []
    for _ in range(7):
        train(step, 1)
        now = values(step)
        moved.append({name for name in now if not np.array_equal(now[name], start[name])})
    backbone = {p.name for p in step.optimizer.parameters if p.name.startswith("backbone.")}
    for names in moved[:6]:
        assert "score_fr.weight" in names and not names & backbone
        assert "backbone.stride8.1.moving_mean" in names  # statistics go on
    assert {name for name in backbone if name.endswith(".weight")} <= moved[6]


@pytest.mark.slow
@pytest.mark.parametrize("make", ["adamw", "momentum"])
def test_a_run_that_is_resumed_while_frozen_is_released_at_the_same_step(make, tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    whole, cut, resumed = (training(MAKES[make]) for _ in range(3))
    train(whole, 8)
    train(cut, 4)
    save_state(cut, {}, tmp_path)
    load_state(resumed, tmp_path)
    train(resumed, 2)
    start = values(training(MAKES[make]))
    assert np.array_equal(
        values(resumed)["backbone.stride8.0.weight"], start["backbone.stride8.0.weight"]
    )
    train(resumed, 2)
    for name, array in values(whole).items():
        assert np.array_equal(array, values(resumed)[name]), name


def test_frozen_epochs_are_counted_in_the_steps_of_the_run():
    keys = ["optimizer=momentum", "optimizer.parameters.frozen_backbone_epochs=3"]
    cfg = compose_config("train", ["model/backbone=compact", *keys])
    network = build.bare_network(cfg)
    batches = ms.dataset.NumpySlicesDataset(list(range(40))).batch(4)
    for limit, steps in ((None, 10), (4, 4)):
        trainer = Trainer("somewhere", limit_train_batches=limit)
        assert build.steps_per_epoch(trainer, batches) == steps
    assert build.optimizer(cfg, network, 0.1, steps).frozen_steps == 12


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
