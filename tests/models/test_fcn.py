import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.models.backbones.mindcv import MindCVBackbone
from src.models.backbones.vgg import VGG
from src.models.fcn import FCN
from src.utils.errors import UserError

STRIDES = (8, 16, 32)
SIZES = [(64, 96), (65, 97), (33, 50), (7, 31)]
TINY = {
    "vgg11": lambda: VGG(11, width=0.05),
    "vgg16_plain": lambda: VGG(16, batch_norm=False, width=0.05, dropout=0.5),
    "mobilenet": lambda: MindCVBackbone("mobilenet_v3_small_100"),
}


class Constant(nn.Cell):
    """Stands for a backbone: features of one channel, 1, 10 and 100 everywhere, from stride 8 on.

    With `finest=4` there is one more map, of 0.1.
    """

    def __init__(self, finest: int = 8) -> None:
        super().__init__()
        self.strides = tuple(s for s in (4, 8, 16, 32) if s >= finest)
        self.channels = (1,) * len(self.strides)

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        n, _, h, w = images.shape
        maps = ()
        for s in self.strides:
            value = {4: 0.1, 8: 1, 16: 10, 32: 100}[s]
            maps += (ops.full((n, 1, -(-h // s), -(-w // s)), value, dtype=ms.float32),)
        return maps


def images(height: int, width: int, batch: int = 1) -> Tensor:
    return Tensor(np.random.randn(batch, 3, height, width).astype(np.float32))


def with_random_scores(network: FCN) -> FCN:
    for parameter in network.get_parameters():
        if parameter.name.startswith("score"):
            parameter.set_data(Tensor(np.random.randn(*parameter.shape).astype(np.float32)))
    return network.set_train(False)


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("stride", STRIDES)
def test_logits_have_the_size_of_the_input(backbone, stride):
    network = with_random_scores(FCN(TINY[backbone](), 5, stride))
    for size in SIZES:
        logits = network(images(*size, batch=2)).asnumpy()
        assert logits.shape == (2, 5, *size)
        assert np.isfinite(logits).all()
        assert np.abs(logits).max() > 0


@pytest.mark.parametrize(
    ("stride", "finest", "total"),
    [(32, 8, 100), (16, 8, 110), (8, 8, 111), (8, 4, 111), (4, 4, 111.1)],
)
def test_finer_strides_add_the_scores_of_finer_features(stride, finest, total):
    network = FCN(Constant(finest), 1, stride)
    for parameter in network.get_parameters():
        if parameter.name.startswith("score"):
            parameter.set_data(ops.ones_like(parameter))
    logits = network(images(160, 192)).asnumpy()
    assert np.allclose(logits[:, :, 32:-32, 32:-32], total)


def test_network_starts_with_zero_scores():
    network = FCN(TINY["vgg11"](), 4)
    assert not network.set_train(False)(images(40, 40)).asnumpy().any()
    for name in ("score_fr", "score_pool4", "score_pool3"):
        assert not network.parameters_dict()[f"{name}.weight"].asnumpy().any()


def test_layers_have_the_names_of_the_paper_and_the_tutorial():
    def names(stride: int) -> list[str]:
        network = FCN(Constant(4), 2, stride)
        return [name.removesuffix(".weight") for name in network.parameters_dict()]

    assert names(32) == ["score_fr", "upscore32"]
    assert names(16) == ["score_fr", "upscore2", "score_pool4", "upscore16"]
    assert names(8) == [
        "score_fr", "upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8",
    ]  # fmt: skip
    assert names(4) == [*names(8)[:-1], "upscore_pool3", "score_pool2", "upscore4"]


def test_constant_score_gives_a_constant_inside():
    network = FCN(TINY["vgg11"](), 3, stride=8, score_bias=True)
    network.score_fr.bias.set_data(Tensor([1.0, 2.0, 3.0]))
    logits = network.set_train(False)(images(160, 160)).asnumpy()
    inside = logits[0, :, 32:-32, 32:-32]
    assert np.allclose(inside, np.array([1, 2, 3])[:, None, None])


class Loss(nn.Cell):
    def __init__(self, network: nn.Cell, labels: Tensor) -> None:
        super().__init__(auto_prefix=False)
        self.network, self.labels = network, labels

    def construct(self, images: Tensor) -> Tensor:
        return ops.cross_entropy(self.network(images), self.labels)


def check_that_scores_alone_have_gradients() -> None:
    network = FCN(TINY["vgg11"](), 3).set_train(True)
    labels = Tensor(np.random.randint(0, 3, (2, 48, 72)), ms.int32)
    parameters = ms.ParameterTuple(network.trainable_params())
    gradient = ops.GradOperation(get_by_list=True)(Loss(network, labels), parameters)
    gradients = gradient(images(48, 72, batch=2))
    for parameter, values in zip(parameters, gradients, strict=True):
        # Zero scores hide the layers before and after them for one step
        assert values.asnumpy().any() == parameter.name.startswith("score"), parameter.name


def test_first_step_trains_the_score_layers():
    check_that_scores_alone_have_gradients()


def test_first_step_trains_the_score_layers_in_graph_mode(graph_mode):
    check_that_scores_alone_have_gradients()


def test_fixed_upsampling_is_not_trained():
    network = FCN(TINY["vgg11"](), 3, learn_upsampling=False)
    assert not [p.name for p in network.trainable_params() if "upscore" in p.name]
    learned = FCN(TINY["vgg11"](), 3)
    assert len([p for p in learned.trainable_params() if "upscore" in p.name]) == 3


def test_skips_are_scaled_before_they_are_scored():
    network = with_random_scores(FCN(Constant(), 1, skip_scales=(0.01, 0.0001)))
    for parameter in network.get_parameters():
        if parameter.name.startswith("score"):
            parameter.set_data(ops.ones_like(parameter))
    logits = network(images(160, 160)).asnumpy()
    assert np.allclose(logits[:, :, 32:-32, 32:-32], 100 + 10 * 0.01 + 1 * 0.0001)


@pytest.mark.parametrize("stride", STRIDES)
def test_dynamic_graph_equals_eager_mode_for_all_sizes(graph_mode, stride):
    network = with_random_scores(FCN(TINY["vgg11"](), 4, stride))
    network.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    batches = [images(*size) for size in SIZES]
    dynamic = [network(batch).asnumpy() for batch in batches]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for batch, logits in zip(batches, dynamic, strict=True):
        expected = network(batch).asnumpy()
        assert logits.shape == expected.shape
        assert np.allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_static_graph_equals_eager_mode(graph_mode):
    network = with_random_scores(FCN(TINY["vgg11"](), 4))
    batch = images(33, 50)
    static = network(batch).asnumpy()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = network(batch).asnumpy()
    assert np.allclose(static, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"stride": 4}, "model.stride=4: expected one of 8, 16, 32"),
        ({"num_classes": None}, "num_classes=None: expected a positive number"),
        ({"num_classes": 0}, "num_classes=0: expected a positive number"),
        ({"skip_scales": [1.0]}, "expected two factors"),
        ({"backbone": nn.ReLU()}, "backbone ReLU: expected an attribute `channels`"),
    ],
)
def test_wrong_values_are_refused(wrong, expected):
    with pytest.raises(UserError, match=expected):
        FCN(**{"backbone": Constant(), "num_classes": 2, **wrong})
