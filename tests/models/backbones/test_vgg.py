from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from mindspore import Tensor, nn

from src.models.backbones.vgg import VGG
from src.utils.errors import UserError

CONF = Path(__file__).parents[3] / "conf"
CONVOLUTIONS = {11: 8, 13: 10, 16: 13, 19: 16}


def images(height: int, width: int) -> Tensor:
    return Tensor(np.random.randn(1, 3, height, width).astype(np.float32))


@pytest.mark.parametrize("depth", CONVOLUTIONS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_depth_counts_convolutions_and_two_for_the_head(depth, batch_norm):
    backbone = VGG(depth, batch_norm, width=0.05)
    cells = [cell for _, cell in backbone.cells_and_names()]
    assert sum(isinstance(c, nn.Conv2d) for c in cells) == CONVOLUTIONS[depth] + 2 == depth - 1
    assert sum(isinstance(c, nn.BatchNorm2d) for c in cells) == batch_norm * (depth - 1)
    assert all(c.has_bias is not batch_norm for c in cells if isinstance(c, nn.Conv2d))


def test_parameters_have_the_names_of_the_tutorial():
    names = list(VGG(16, width=0.05).parameters_dict())
    assert names[:5] == [
        "conv1.0.weight",
        "conv1.1.moving_mean",
        "conv1.1.moving_variance",
        "conv1.1.gamma",
        "conv1.1.beta",
    ]
    assert {"conv1.3.weight", "conv5.7.beta", "conv6.0.weight", "conv7.1.gamma"} <= set(names)
    assert len(names) == 15 * 5


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 31), (1, 1)])
def test_sizes_of_features_round_up(size):
    backbone = VGG(11, width=0.05)
    for features, channels, stride in zip(
        backbone(images(*size)), backbone.channels, (8, 16, 32), strict=True
    ):
        assert features.shape == (1, channels, *(-(-s // stride) for s in size))


def test_pooling_keeps_the_last_row_and_column_of_an_odd_size():
    pooled = VGG(11, width=0.05).pool(
        Tensor(np.arange(-9, 0, dtype=np.float32).reshape(1, 1, 3, 3))
    )
    assert pooled.asnumpy().tolist() == [[[[-5, -4], [-2, -1]]]]


def test_width_scales_all_channels():
    backbone = VGG(16, head_channels=1024, width=0.25)
    assert backbone.channels == (64, 128, 256)
    assert backbone.conv6[0].weight.shape == (256, 128, 7, 7)


def test_dropout_works_in_training_alone():
    backbone = VGG(11, batch_norm=False, width=0.05, dropout=0.5)
    batch = images(64, 64)

    def fc7(training: bool) -> np.ndarray:
        return backbone.set_train(training)(batch)[2].asnumpy()

    assert np.array_equal(fc7(False), fc7(False))
    assert not np.array_equal(fc7(True), fc7(True))


def test_plain_network_keeps_a_tenth_of_the_size_of_the_signal_at_the_start():
    backbone = VGG(16, batch_norm=False, width=0.1)
    fc7 = backbone.set_train(False)(images(64, 64))[2].asnumpy()
    assert 0.005 < np.sqrt((fc7**2).mean()) < 2


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"depth": 12}, "depth=12: expected one of 11, 13, 16, 19"),
        ({"width": 0.0}, "width=0.0 head_channels=4096: expected positive numbers"),
        ({"dropout": 1.0}, "dropout=1.0: expected 0 to below 1"),
    ],
)
def test_values_out_of_range_are_refused(wrong, expected):
    with pytest.raises(UserError) as error:
        VGG(**wrong)
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("name", "depth", "batch_norm"),
    [("vgg11", 11, True), ("vgg13", 13, True), ("vgg16", 16, True), ("vgg19", 19, True)]
    + [("vgg16_plain", 16, False), ("vgg_slim", 16, True)],
)
def test_configs_describe_their_network(name, depth, batch_norm):
    with initialize_config_dir(str(CONF / "model"), version_base="1.3"):
        config = compose(f"backbone/{name}", ["backbone.width=0.05"]).backbone
    backbone = instantiate(config)
    assert (config.depth, config.batch_norm) == (depth, batch_norm)
    assert isinstance(backbone, VGG)
