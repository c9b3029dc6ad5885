"""Equal blocks that are parsed once: which are, and that the graph is the one it would be anyway."""

from collections import Counter

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.graph._parse import parser

from src.device.dropout import make_dropout_repeatable
from src.device.lazy_inline import parse_equal_blocks_once
from src.device.precision import set_precision
from src.engine.segmenter import Segmenter
from src.engine.train_step import TrainStep
from src.losses import CrossEntropy
from src.models.backbones.efficientnet_lite import EfficientNetLite
from src.models.backbones.mindcv import MindCVBackbone
from src.utils.normalization import IMAGENET_RGB
from tests.device.gradients import normal

CHANNELS = 6


class Block(nn.Cell):
    def __init__(self, factor=1.0, kernel=3, dropped=0.0):
        super().__init__()
        self.factor = factor
        self.body = nn.SequentialCell(
            nn.Conv2d(CHANNELS, CHANNELS, kernel, weight_init="HeNormal"),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(p=dropped) if dropped else nn.Identity()

    def construct(self, x):
        return self.dropout(self.body(x)) * self.factor + x


class WithDefault(Block):
    def construct(self, x, factor=1.0):
        return self.body(x) * factor


def network(*blocks):
    first, last = nn.Conv2d(3, CHANNELS, 1), nn.Conv2d(CHANNELS, 2, 1, weight_init="HeNormal")
    return nn.SequentialCell(first, *blocks, last)


def marks(cell):
    """The marks of the blocks of `network`; None: none."""
    parse_equal_blocks_once(cell)
    found = [vars(block).get("_cell_init_args", "") for block in list(cell)[1:-1]]
    return [mark if mark.startswith("lazy_inline") else None for mark in found]


def test_equal_blocks_have_one_mark_and_a_single_one_has_none():
    a, b, other, c, single = marks(
        network(Block(), Block(), Block(factor=2.0), Block(), Block(kernel=5))
    )
    assert a is not None and a == b == c
    assert other is None and single is None
    one, two = marks(network(Block(), Block())), marks(network(Block(2.0), Block(2.0)))
    assert one[0] == one[1] != two[0] == two[1]


def frozen(block):
    block.body[0].weight.requires_grad = False


def half(block):
    block.to_float(ms.float16)


def in_training(block):
    block.body[1].set_train()


def of_another_constant(block):
    block.body[1].eps = 1e-3


@pytest.mark.parametrize("change", [frozen, half, in_training, of_another_constant])
def test_whatever_would_be_compiled_in_makes_blocks_unequal(change):
    blocks = Block(), Block()
    change(blocks[0])
    assert marks(network(*blocks)) == [None, None]


def test_blocks_with_masks_of_their_own_are_not_equal():
    cell = network(Block(dropped=0.5), Block(dropped=0.5))
    make_dropout_repeatable(cell, seed=1)
    assert marks(cell) == [None, None]


def test_blocks_whose_arguments_have_defaults_are_left_as_they_are():
    assert marks(network(WithDefault(), WithDefault())) == [None, None]


def marked_classes(cell):
    parse_equal_blocks_once(cell)
    cells = [child for _, child in cell.cells_and_names()]
    found = [c for c in cells if "lazy_inline" in vars(c).get("_cell_init_args", "")]
    return [type(c).__name__ for c in found]


def test_the_blocks_of_deep_backbones_are_found():
    assert marked_classes(MindCVBackbone("resnet101")) == ["Bottleneck"] * (2 + 3 + 22 + 2)
    assert marked_classes(EfficientNetLite(0)) == ["_Block"] * (2 + 2 + 3)


def after_two_steps(lazy_inline, level, mode=ms.GRAPH_MODE, accumulate=1):
    """Losses of two training steps and what has become of all parameters."""
    ms.set_context(mode=mode)
    ms.set_seed(1)
    np.random.seed(1)
    cell = network(*(Block() for _ in range(3)), Block(factor=0.5))
    for parameter in cell.get_parameters():
        if parameter.ndim == 4:
            parameter.set_data(Tensor(0.3 * normal(*parameter.shape)))
    set_precision(cell, level)
    momentum = nn.Momentum(cell.trainable_params(), 0.1, 0.9)
    scaler = ms.amp.DynamicLossScaler(2.0**10, 2, 1000) if level != "O0" else None
    step = TrainStep(
        cell, CrossEntropy(), momentum, accumulate, loss_scaler=scaler, lazy_inline=lazy_inline
    ).set_train()
    labels = Tensor((normal(2, 8, 9) > 0).astype(np.int32))
    losses = [float(step(Tensor(normal(2, 3, 8, 9)), labels).asnumpy()) for _ in range(2)]
    return losses, {p.name: p.asnumpy().tolist() for p in step.get_parameters()}


@pytest.fixture
def parsed(monkeypatch):
    """How often MindSpore has parsed the code of a function, by its name."""
    counts, parse = Counter(), parser.Parser.parse

    def counted(self):
        counts[self.fn.__qualname__] += 1
        return parse(self)

    monkeypatch.setattr(parser.Parser, "parse", counted)
    yield counts
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.slow
@pytest.mark.parametrize(("level", "accumulate"), [("O0", 1), ("O2", 2), ("O3", 1)])
def test_training_is_the_same_to_the_bit_and_equal_blocks_are_parsed_once(
    level, accumulate, parsed
):
    """With the statistics of batch norm, which half precision must not keep copies of."""
    plain = after_two_steps(False, level, accumulate=accumulate)
    assert parsed["Block.construct"] == 4 * parsed["TrainStep.construct"]
    parsed.clear()
    assert after_two_steps(True, level, accumulate=accumulate) == plain
    assert parsed["Block.construct"] == 2 * parsed["TrainStep.construct"] > 0


def test_eager_execution_does_not_heed_the_marks(parsed):
    assert after_two_steps(True, "O0", ms.PYNATIVE_MODE) == after_two_steps(
        False, "O0", ms.PYNATIVE_MODE
    )


@pytest.mark.slow
def test_one_dynamic_graph_still_serves_images_of_all_sizes(parsed):
    ms.set_context(mode=ms.GRAPH_MODE)
    plain = network(Block(), Block(), Block()).set_train(False)
    marked = network(Block(), Block(), Block()).set_train(False)
    ms.load_param_into_net(marked, plain.parameters_dict())
    assert None not in marks(marked)
    for size in ((32, 48), (33, 70)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        ours, theirs = (
            Segmenter(cell, IMAGENET_RGB, fast_convolutions=False).probabilities(image)
            for cell in (marked, plain)
        )
        assert np.array_equal(ours, theirs)
    assert parsed["Block.construct"] == 2 * (1 + 3)  # a graph for each of the four segmenters
