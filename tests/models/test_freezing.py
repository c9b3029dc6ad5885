"""What is frozen does not move, statistics included; the rest does."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.engine.train_step import TrainStep
from src.losses import CrossEntropy
from src.models.backbones.vgg import VGG
from src.models.fcn import FCN
from src.models.freezing import freeze, freeze_norms
from src.utils.errors import UserError

IMAGES = Tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
LABELS = Tensor(np.random.default_rng(1).integers(0, 3, (2, 32, 32)).astype(np.int32))


def network() -> FCN:
    net = FCN(VGG(11, head_channels=256, width=1 / 32), num_classes=3)
    rng = np.random.default_rng(2)
    for name in ("score_fr", "score_pool4", "score_pool3"):  # zeros would pass no gradient on
        weight = getattr(net, name).weight
        weight.set_data(Tensor(rng.normal(size=weight.shape).astype(np.float32)))
    return net


def moved_by_a_step(net: FCN) -> set[str]:
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    step = TrainStep(net, CrossEntropy(), optimizer).set_train()
    before = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    step(IMAGES, LABELS)
    return {p.name for p in net.get_parameters() if not np.array_equal(before[p.name], p.asnumpy())}


@pytest.fixture(params=[ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
def mode(request):
    ms.set_context(mode=request.param)


def test_frozen_stages_do_not_move_nor_do_their_statistics(mode):
    net = network()
    freeze(net, ["backbone.conv1", "backbone.conv2"])
    moved = moved_by_a_step(net)
    assert not any(name.startswith(("backbone.conv1.", "backbone.conv2.")) for name in moved)
    for name in ("backbone.conv3.0.weight", "backbone.conv3.1.moving_mean", "score_fr.weight"):
        assert name in moved


def test_nothing_frozen_moves_everything():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = network()
    freeze(net, [])
    assert moved_by_a_step(net) == {p.name for p in net.get_parameters()}


def test_frozen_norms_keep_scale_shift_and_statistics_while_weights_move(mode):
    net = network()
    freeze_norms(net.backbone)
    moved = moved_by_a_step(net)
    leaves = {name.rpartition(".")[2] for name in moved}
    assert leaves == {"weight"}
    assert "backbone.conv1.0.weight" in moved


def test_a_part_is_a_whole_name_and_an_unknown_one_is_refused():
    net = network()
    freeze(net, "backbone.conv1.0")
    assert [p.name for p in net.get_parameters() if not p.requires_grad][0] == (
        "backbone.conv1.0.weight"
    )
    with pytest.raises(UserError, match=r"model.frozen=backbone.con: .*mean 'backbone.conv"):
        freeze(net, ["backbone.con"])
