"""One weight update: averaging over parts, clipping, loss scaling."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, amp, nn, ops

from src.engine.train_step import TrainStep
from src.losses import CrossEntropy

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 3, 6, 5)).astype(np.float32)
LABELS = RNG.integers(0, 2, (4, 6, 5)).astype(np.int32)
LABELS[1] = 255  # a part without any valid pixel
LABELS[2, :4] = 255  # and one with few
START = RNG.normal(size=(2, 3, 1, 1)).astype(np.float32)


def step(rate=0.1, loss=None, **options) -> TrainStep:
    network = nn.Conv2d(3, 2, 1, pad_mode="valid", has_bias=False)
    network.weight.set_data(Tensor(START))
    optimizer = nn.SGD(network.trainable_params(), rate)
    return TrainStep(network, loss or CrossEntropy(), optimizer, **options).set_train()


def run(cell: TrainStep, images=IMAGES, labels=LABELS) -> tuple[float, np.ndarray]:
    loss = float(cell(Tensor(images), Tensor(labels)).asnumpy())
    return loss, cell.network.weight.asnumpy()


def expected(images=IMAGES, labels=LABELS) -> tuple[float, np.ndarray]:
    """Loss and gradient of a pixel-wise linear classifier, by the textbook."""
    pixels = images.transpose(0, 2, 3, 1).reshape(-1, 3)
    targets = labels.reshape(-1)
    pixels, targets = pixels[targets != 255], targets[targets != 255]
    logits = pixels @ START.reshape(2, 3).T
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(targets)), targets]).mean()
    probabilities[np.arange(len(targets)), targets] -= 1
    return loss, (probabilities.T @ pixels / len(targets)).reshape(START.shape)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_parts_give_loss_and_update_of_the_whole_batch_void_included(accumulate, mode):
    ms.set_context(mode=mode)
    loss, gradient = expected()
    got, weight = run(step(accumulate=accumulate))
    assert got == pytest.approx(loss, rel=1e-5)
    assert np.allclose(weight, START - 0.1 * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_summed_loss_is_the_average_times_the_valid_pixels(accumulate):
    loss, gradient = expected()
    valid = int((LABELS != 255).sum())
    got, weight = run(step(1e-3, CrossEntropy(reduction="sum"), accumulate=accumulate))
    assert got == pytest.approx(loss * valid, rel=1e-5)
    assert np.allclose(weight, START - 1e-3 * gradient * valid, rtol=1e-5, atol=1e-6)


def test_a_batch_of_void_alone_gives_loss_zero_and_leaves_the_weights():
    got, weight = run(step(accumulate=2), labels=np.full_like(LABELS, 255))
    assert got == 0.0
    assert np.array_equal(weight, START)


def test_gradients_above_the_norm_are_cut_to_it():
    _, gradient = expected()
    norm = np.linalg.norm(gradient)
    _, weight = run(step(gradient_clip=float(norm) / 2))
    assert np.allclose(START - weight, 0.1 * gradient / 2, rtol=1e-4, atol=1e-7)
    _, weight = run(step(gradient_clip=float(norm) * 2))
    assert np.allclose(START - weight, 0.1 * gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_loss_scaling_changes_neither_loss_nor_update(mode):
    ms.set_context(mode=mode)
    loss, gradient = expected()
    scaler = amp.DynamicLossScaler(2**10, 2, 1000)
    got, weight = run(step(loss_scaler=scaler, accumulate=2))
    assert got == pytest.approx(loss, rel=1e-4)
    assert np.allclose(weight, START - 0.1 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"gradient_clip": 0.01}])
def test_two_ranks_that_see_the_same_make_the_step_of_one(options, monkeypatch):
    """The sum over them is twice what either has; tests/integration has ranks that differ."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    alone = run(step(**options))
    monkeypatch.setattr(ops, "AllReduce", lambda: lambda value: value * 2)
    loss, weight = run(step(**options, world_size=2))
    assert loss == pytest.approx(alone[0], rel=1e-6)
    assert np.allclose(weight, alone[1], rtol=1e-6)


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_gradients_share_messages_up_to_a_size(mode, monkeypatch):
    """Three convolutions of 96, 64 and 16 bytes without bias, in the order of backward."""
    ms.set_context(mode=mode)

    class Alone(nn.Cell):
        def construct(self, value):
            return value

    monkeypatch.setattr(ops, "AllReduce", Alone)
    for most, messages in ((None, 3), (81 / 2**20, 2), (1.0, 1)):
        weights = []
        for step_messages in (None, most):
            network = nn.SequentialCell(
                *(nn.Conv2d(i, o, 1, weight_init="ones") for i, o in ((3, 8), (8, 2), (2, 2)))
            )
            optimizer = nn.SGD(network.trainable_params(), 0.1)
            cell = TrainStep(
                network, CrossEntropy(), optimizer, world_size=2, all_reduce_megabytes=step_messages
            ).set_train()
            cell(Tensor(IMAGES), Tensor(LABELS))
            weights.append([p.asnumpy() for p in network.trainable_params()])
        assert len(cell.messages) == messages
        assert all(map(np.array_equal, *weights))


def test_running_statistics_are_averaged_over_the_ranks(monkeypatch):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    # The other rank has nothing but zeros: halves are left of a loss of 0 and of the statistics
    monkeypatch.setattr(ops, "AllReduce", lambda: lambda value: value)
    network = nn.SequentialCell(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=0.9))
    optimizer = nn.SGD(network.trainable_params(), 0.0)
    features = network[0](Tensor(IMAGES)).asnumpy()
    TrainStep(network, CrossEntropy(), optimizer, world_size=2).set_train()(
        Tensor(IMAGES), Tensor(LABELS)
    )
    expected = 0.1 * features.mean(axis=(0, 2, 3)) / 2
    assert np.allclose(network[1].moving_mean.asnumpy(), expected, rtol=1e-4, atol=1e-7)


def test_a_step_that_one_process_leaves_out_is_left_out_by_all(monkeypatch):
    """Overflow may be known to one alone: the sum over processes says so to this one."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    elsewhere = [0.0]
    monkeypatch.setattr(
        ops,
        "AllReduce",
        lambda: lambda value: value + elsewhere[0] if value.shape == () else value,
    )
    scaler = amp.DynamicLossScaler(1.0, 2, 1000)
    cell = step(loss_scaler=scaler, world_size=2)
    assert not np.array_equal(run(cell)[1], START)
    before = cell.network.weight.asnumpy().copy()
    elsewhere[0] = 1.0
    assert np.array_equal(run(cell)[1], before)


def test_gradients_are_unscaled_without_mindspores_compiled_map(monkeypatch):
    """It is shared by all scalers of a process, and in PyNative mode at times takes another's scale."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    monkeypatch.setattr(amp.DynamicLossScaler, "unscale", lambda self, inputs: inputs)
    _, gradient = expected()
    _, weight = run(step(loss_scaler=amp.DynamicLossScaler(1024, 2, 1000)))
    assert np.allclose(weight, START - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_an_overflowing_step_is_left_out_and_the_scale_halved():
    scaler = amp.DynamicLossScaler(2**10, 2, 1000)
    images = IMAGES.copy()
    images[0, 0, 5, 4] = np.inf
    cell = step(loss_scaler=scaler)
    _, weight = run(cell, images)
    assert np.array_equal(weight, START)
    assert float(scaler.scale_value.asnumpy()) == 2**9
    assert np.isfinite(run(cell)[0])


@pytest.mark.parametrize("fast", [True, False])
def test_the_own_convolutions_of_the_cpu_can_be_switched_off(fast):
    network = nn.Conv2d(3, 2, 3)
    optimizer = nn.SGD(network.trainable_params(), 0.1)
    TrainStep(network, CrossEntropy(), optimizer, fast_convolutions=fast)
    assert isinstance(network.conv2d, nn.Cell) is fast
