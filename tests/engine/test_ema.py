"""The average of the weights: its recursion, and who gets it."""

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import Tensor, amp, nn

from src.engine.callbacks.validation import BestCheckpoint, Validate
from src.engine.ema import ExponentialMovingAverage
from src.engine.evaluator import Evaluation, Evaluator
from src.engine.train_step import TrainStep
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.utils.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 3, 6, 5)).astype(np.float32)
LABELS = RNG.integers(0, 2, (2, 6, 5)).astype(np.int32)


def one_weight(value: float) -> nn.Cell:
    network = nn.Conv2d(1, 1, 1, has_bias=False)
    network.weight.set_data(Tensor(np.full((1, 1, 1, 1), value, np.float32)))
    return network


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_the_average_is_the_one_computed_by_hand(mode):
    ms.set_context(mode=mode)
    network = one_weight(1)
    average = ExponentialMovingAverage(network, decay=0.15)
    # d = 1/10, then 2/11 and 3/12, which the decay cuts to 0.15
    for weight, expected in ((2, 0.1 * 1 + 0.9 * 2), (4, 0.15 * 1.9 + 0.85 * 4), (3.685, 3.685)):
        network.weight.set_data(Tensor(np.full((1, 1, 1, 1), weight, np.float32)))
        average()
        assert average.averages[0].asnumpy().item() == pytest.approx(expected)
        assert network.weight.asnumpy().item() == pytest.approx(weight)


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_each_step_takes_its_new_weights_and_statistics_in(mode):
    ms.set_context(mode=mode)
    network = nn.SequentialCell(nn.Conv2d(3, 2, 1, has_bias=True), nn.BatchNorm2d(2))
    optimizer = nn.Momentum(network.trainable_params(), 0.5, 0.9)
    average = ExponentialMovingAverage(network, decay=0.5)
    cell = TrainStep(network, CrossEntropy(), optimizer, ema=average).set_train()
    expected = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    assert "1.moving_mean" in expected
    for decay in (1 / 10, 2 / 11, 3 / 12):
        cell(Tensor(IMAGES), Tensor(LABELS))
        for p in network.get_parameters():
            expected[p.name] = decay * expected[p.name] + (1 - decay) * p.asnumpy()
    for p in average.averages:
        assert np.allclose(p.asnumpy(), expected[p.name.removeprefix("ema.")], atol=1e-6), p.name


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_training_goes_on_as_if_the_averages_had_never_been_in_place(mode):
    ms.set_context(mode=mode)

    def trained(looks: bool) -> np.ndarray:
        network = nn.Conv2d(3, 2, 1, has_bias=False, weight_init="ones")
        average = ExponentialMovingAverage(network, decay=0.9)
        optimizer = nn.Momentum(network.trainable_params(), 0.5, 0.9)
        cell = TrainStep(network, CrossEntropy(), optimizer, ema=average).set_train()
        for _ in range(3):
            cell(Tensor(IMAGES), Tensor(LABELS))
            if looks:
                with average.in_place():
                    averaged = average.averages[0].asnumpy()
                    assert np.array_equal(network.weight.asnumpy(), averaged)
        return network.weight.asnumpy()

    assert np.array_equal(trained(looks=True), trained(looks=False))


def test_a_step_left_out_for_overflow_is_not_averaged():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = nn.Conv2d(3, 2, 1, has_bias=False)
    optimizer = nn.SGD(network.trainable_params(), 0.1)
    average = ExponentialMovingAverage(network, decay=0.9)
    scaler = amp.DynamicLossScaler(2**10, 2, 1000)
    cell = TrainStep(network, CrossEntropy(), optimizer, loss_scaler=scaler, ema=average)
    cell.set_train()(Tensor(np.full_like(IMAGES, np.inf)), Tensor(LABELS))
    assert average.updates.asnumpy() == 0
    cell(Tensor(IMAGES), Tensor(LABELS))
    assert average.updates.asnumpy() == 1


class FirstWeight(Evaluator):
    """An evaluator whose mIoU is the network's weight."""

    def __init__(self, network):
        super().__init__(None, [0], None, (), "val")
        self.network = network

    def names(self):
        return ["miou"]

    def run(self, count, on_sample):
        value = float(self.network.weight.asnumpy().ravel()[0])
        return Evaluation({"miou": value}, {}, np.zeros((2, 2)), {"split": "val"})


def fit(path, **options):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(1)
    network = nn.Conv2d(3, 2, 1, has_bias=False)
    optimizer = nn.SGD(network.trainable_params(), 0.5)
    data = ds.NumpySlicesDataset((list(IMAGES), list(LABELS)), ["images", "labels"], shuffle=False)
    callbacks = [Validate(), BestCheckpoint()]
    trainer = Trainer(path, callbacks, max_epochs=2, ema_decay=0.9, **options)
    state = trainer.fit(network, CrossEntropy(), optimizer, data.batch(2), FirstWeight(network))
    return trainer, state


def stored(path, name):
    return ms.load_checkpoint(str(path / "checkpoints" / f"{name}.ckpt"))["weight"].asnumpy()


@pytest.mark.parametrize("monitor", ["val/miou", "val/ema/miou"])
def test_both_are_validated_and_the_monitored_weights_are_kept_as_best(tmp_path, monitor):
    trainer, state = fit(tmp_path, monitor=monitor)
    raw = trainer.train_step.network.weight.asnumpy()
    averaged = trainer.train_step.ema.averages[0].asnumpy()
    assert state.metrics["val/miou"] == pytest.approx(raw.ravel()[0])
    assert state.metrics["val/ema/miou"] == pytest.approx(averaged.ravel()[0])
    assert state.metrics["val/ema/miou"] != state.metrics["val/miou"]
    assert np.array_equal(stored(tmp_path, "last"), raw)
    assert np.array_equal(stored(tmp_path, "last_ema"), averaged)
    best = stored(tmp_path, "best").ravel()[0]
    assert best == pytest.approx(state.best[monitor])
    protocol = state.best_evaluation.protocol
    assert ("weights" in protocol) == (monitor == "val/ema/miou")


def test_an_average_that_is_not_kept_cannot_be_monitored(tmp_path):
    with pytest.raises(UserError, match="set trainer.ema_decay=0.999, or monitor val/miou"):
        Trainer(tmp_path, monitor="val/ema/miou")
