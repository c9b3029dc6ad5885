"""The auxiliary head: its logits, its loss, and where it is not."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.engine.checkpoint import save_weights
from src.engine.train_step import TrainStep
from src.losses import CrossEntropy, WithAuxiliary
from src.models.backbones.compact import Compact
from src.models.fcn import FCN
from src.models.weights import load_weights
from src.optim.optimizers import parameter_groups

IMAGES = Tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 32)).astype(np.float32))
LABELS = Tensor(np.random.default_rng(1).integers(0, 4, (2, 64, 32)).astype(np.int32))


def network(**options) -> FCN:
    return FCN(Compact([4, 4, 8, 8, 8]), num_classes=4, **options)


@pytest.fixture(params=[ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
def mode(request):
    ms.set_context(mode=request.param)


def test_its_logits_are_there_in_training_alone(mode):
    net = network(auxiliary=True).set_train(True)
    logits, auxiliary = net(IMAGES)
    assert logits.shape == auxiliary.shape == (2, 4, 64, 32)
    assert net.set_train(False)(IMAGES).shape == (2, 4, 64, 32)


def test_the_loss_is_the_sum_of_both_heads_weighted():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    own = np.log(np.array([3, 1], np.float32)).reshape(1, 2, 1, 1)  # class 0: 3/4
    head = np.zeros((1, 2, 1, 1), np.float32)  # class 0: 1/2
    label = Tensor(np.zeros((1, 1, 1), np.int32))
    loss = WithAuxiliary(CrossEntropy(), 0.4)((Tensor(own), Tensor(head)), label)
    assert float(loss.asnumpy()) == pytest.approx(-np.log(3 / 4) - 0.4 * np.log(1 / 2))
    summed = WithAuxiliary(CrossEntropy(reduction="sum"), 0.4)
    twice = [Tensor(np.concatenate([each] * 2)) for each in (own, head)]
    loss = summed(tuple(twice), Tensor(np.zeros((2, 1, 1), np.int32)))
    assert float(loss.asnumpy()) == pytest.approx(2 * (-np.log(3 / 4) - 0.4 * np.log(1 / 2)))


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(reduction="sum")])
def test_parts_of_a_batch_combine_to_the_loss_of_the_whole(loss):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng = np.random.default_rng(3)
    own, head = (rng.normal(size=(2, 4, 6, 5)).astype(np.float32) for _ in range(2))
    labels = rng.integers(0, 4, (2, 6, 5)).astype(np.int32)
    labels[1, :4] = 255  # of unequal weight
    both = WithAuxiliary(loss, 0.4)
    parts = [
        both.parts((Tensor(own[i : i + 1]), Tensor(head[i : i + 1])), Tensor(labels[i : i + 1]))
        for i in range(2)
    ]
    combined = (parts[0][0] + parts[1][0]) / both.divisor(parts[0][1] + parts[1][1])
    whole = both((Tensor(own), Tensor(head)), Tensor(labels))
    assert float(combined.asnumpy()) == pytest.approx(float(whole.asnumpy()), rel=1e-5)


def test_it_is_trained_at_a_rate_of_its_own(mode):
    net = network(auxiliary=True)
    groups = parameter_groups(
        net.trainable_params(), 0.1, 0.0, lr_factors={"auxiliary": 0, "backbone": 0, "score": 2}
    )
    step = TrainStep(net, WithAuxiliary(CrossEntropy(), 0.4), nn.SGD(groups, 0.1)).set_train()
    before = {p.name: p.asnumpy().copy() for p in net.trainable_params()}
    step(IMAGES, LABELS)
    moved = {
        p.name for p in net.trainable_params() if not np.array_equal(before[p.name], p.asnumpy())
    }
    assert "score_fr.weight" in moved
    assert not any(name.startswith(("auxiliary.", "backbone.")) for name in moved)


def test_checkpoints_are_those_of_the_network_without_it(tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = network(auxiliary=True)
    save_weights(net, tmp_path / "best.ckpt")
    plain = network()
    report = load_weights(plain, tmp_path / "best.ckpt", strict=True)
    assert report.left_over == report.missing == []
    assert np.array_equal(plain.set_train(False)(IMAGES), net.set_train(False)(IMAGES))
