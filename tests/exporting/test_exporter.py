"""Exported files compute what the network computes, and say what a user must know."""

import json

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from mindspore import Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto
from safetensors import safe_open

from src.engine.segmenter import Segmenter
from src.exporting import onnx_graph
from src.exporting.exporter import Exporter, check_output
from src.exporting.specification import Specification
from src.models.backbones.mindcv import MindCVBackbone
from src.models.backbones.vgg import VGG
from src.models.fcn import FCN
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB, TUTORIAL_BGR

pytestmark = pytest.mark.slow

CLASSES = ("sky", "ground", "disc")
ABOUT = {"class_names": CLASSES, "ignore_index": 255, "stride": 8, "skip_scales": (0.5, 0.25)}


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def trained(network, seed=0):
    """As after training: no zeros in score layers, norms that differ by channel."""
    rng = np.random.default_rng(seed)
    for name, parameter in network.parameters_and_names():
        value = parameter.asnumpy()
        if name.startswith("score") or name.endswith(("beta", "bias", "moving_mean")):
            value = rng.normal(0, 0.3, value.shape)
        elif name.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 2, value.shape)
        elif name.startswith("upscore"):
            value = value + rng.normal(0, 0.02, value.shape)
        elif value.ndim == 4:
            value = rng.normal(0, np.sqrt(2 / value[0].size), value.shape)
        parameter.set_data(Tensor(value.astype(np.float32)))
    network.set_train(False)
    return network


def vgg(stride=8, seed=0):
    return trained(FCN(VGG(11, True, 512, width=1 / 32), 3, stride), seed)


def paper():
    """With biases, dropout and scaled skips."""
    backbone = VGG(11, False, 512, width=1 / 32, dropout=0.5)
    return trained(FCN(backbone, 3, score_bias=True, skip_scales=(0.5, 0.25)))


def export(network, path, normalization=IMAGENET_RGB, rebuild=None, **specification):
    """Exports; returns the metadata and what was compared."""
    specification = Specification(path.suffix[1:], **specification)
    exporter = Exporter(network, normalization, specification, ABOUT, rebuild)
    return exporter.metadata, exporter.export(path)


def run(path, images):
    if path.suffix == ".onnx":
        return onnxruntime.InferenceSession(str(path)).run(None, {"images": images})[0]
    return nn.GraphCell(ms.load(str(path)))(Tensor(images)).asnumpy()


def noise(*shape):
    return np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)


def stored_metadata(path):
    if path.suffix == ".onnx":
        return onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    if path.suffix == ".mindir":
        return dict(ModelProto.FromString(path.read_bytes()).user_info)
    with safe_open(path, "np") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (vgg, "mindir"),
        (vgg, "onnx"),
        (paper, "onnx"),
        (lambda: vgg(32), "onnx"),
        (paper, "mindir"),
        (lambda: vgg(16), "onnx"),
    ],
)
def test_a_file_takes_any_height_width_and_number_of_images(tmp_path, make, suffix):
    network = make()
    _, parity = export(network, tmp_path / f"net.{suffix}")
    assert parity["inputs"][-1] == "a scene of 2×65×97"
    images = noise(3, 3, 33, 50)  # a size that the parity check did not see
    expected = network(Tensor(images)).asnumpy()
    assert expected.shape == (3, 3, 33, 50)
    np.testing.assert_allclose(
        run(tmp_path / f"net.{suffix}", images), expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize("suffix", ["mindir", "onnx"])
def test_a_fixed_size_is_the_only_one_taken(tmp_path, suffix):
    network = vgg(16)
    metadata, _ = export(network, tmp_path / f"net.{suffix}", size=(40, 75), batch_size=1)
    images = noise(1, 3, 40, 75)
    expected = network(Tensor(images)).asnumpy()
    np.testing.assert_allclose(run(tmp_path / f"net.{suffix}", images), expected, atol=1e-4)
    assert metadata["size"] == "[40, 75]" and metadata["input"].startswith(
        "images: 1 x 3 x 40 x 75"
    )
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
        assert session.get_inputs()[0].shape == [1, 3, 40, 75]
        assert session.get_outputs()[0].shape == [1, 3, 40, 75]


@pytest.mark.parametrize("suffix", ["mindir", "onnx"])
def test_with_normalisation_and_argmax_inside_rgb_pixels_give_the_class_ids_of_predict(
    tmp_path, suffix
):
    network = vgg()
    path = tmp_path / f"net.{suffix}"
    metadata, _ = export(network, path, TUTORIAL_BGR, normalize=True, argmax=True)
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    ids = run(path, image.transpose(2, 0, 1)[None].astype(np.float32))
    assert ids.dtype == np.int32 and ids.shape == (1, 64, 96)
    expected = Segmenter(network, TUTORIAL_BGR).predict(image)
    assert (ids[0] == expected).mean() > 0.999 and len(np.unique(expected)) > 1
    assert stored_metadata(path) == metadata
    assert "RGB, 0 to 255" in metadata["input"]


def test_a_network_that_predicted_before_is_exported_with_its_own_convolutions(tmp_path):
    network = trained(FCN(VGG(11, True, 512, width=1 / 4), 3))
    images = np.random.default_rng(1).normal(size=(1, 3, 64, 96)).astype(np.float32)
    expected = Segmenter(network, IMAGENET_RGB).class_ids(images)
    export(network, tmp_path / "net.onnx", argmax=True)
    assert (run(tmp_path / "net.onnx", images) == expected).mean() > 0.999


def test_a_file_says_what_a_user_of_it_must_know(tmp_path):
    def rebuild(path):
        fresh = vgg(seed=5)
        ms.load_param_into_net(fresh, ms.load_checkpoint(str(path), format="safetensors"))
        return fresh

    path = tmp_path / "net.safetensors"
    export(vgg(seed=2), path, TUTORIAL_BGR, rebuild)
    stored = stored_metadata(path)
    assert json.loads(stored["class_names"]) == ["sky", "ground", "disc"]
    assert json.loads(stored["mean"]) == [103.53, 116.28, 123.675]
    assert json.loads(stored["std"]) == [57.375, 57.12, 58.395]
    assert stored["color_order"] == "bgr" and stored["num_classes"] == "3"
    assert stored["stride"] == "8" and stored["ignore_index"] == "255"
    assert stored["project"] == "fcn-mindspore-template" and stored["project_version"][0].isdigit()
    assert "any H and W" in stored["padding"] and stored["padding_multiple"] == "32"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_differs_is_refused_and_leaves_nothing(tmp_path):
    network = vgg()
    with pytest.raises(UserError, match=r"net.safetensors: differs from the network by .*no file"):
        export(network, tmp_path / "net.safetensors", rebuild=lambda path: vgg(seed=9))
    assert list(tmp_path.iterdir()) == []


def test_colours_in_the_wrong_order_are_found_also_behind_an_argmax(tmp_path, monkeypatch):
    monkeypatch.setitem(onnx_graph._TRANSLATIONS, "Gather", lambda builder, node, x, *_: x)
    with pytest.raises(UserError, match=r"net.onnx: differs from the network"):
        export(vgg(), tmp_path / "net.onnx", TUTORIAL_BGR, normalize=True, argmax=True)
    assert list(tmp_path.iterdir()) == []


class RoundingDown(nn.Cell):
    """A backbone whose maps round down where ours round up."""

    channels = (4, 4, 4)

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, pad_mode="same")
        self.by_8 = nn.MaxPool2d(8, 8, pad_mode="valid")
        self.by_2 = nn.MaxPool2d(2, 2, pad_mode="valid")

    def construct(self, images):
        f8 = self.by_8(self.convolution(images))
        f16 = self.by_2(f8)
        return f8, f16, self.by_2(f16)


def test_a_network_that_needs_multiples_of_32_gives_a_file_that_says_so(tmp_path):
    metadata, parity = export(trained(FCN(RoundingDown(), 3)), tmp_path / "net.onnx")
    assert metadata["size_multiple"] == "32" and "multiples of 32;" in metadata["padding"]
    assert parity["inputs"][-1] == "a scene of 2×96×64"
    with pytest.raises(UserError, match=r"size=\[40,75\]: .* multiples of 32"):
        export(trained(FCN(RoundingDown(), 3)), tmp_path / "fixed.onnx", size=(40, 75))


def test_an_operator_without_translation_is_named(tmp_path):
    class Odd(RoundingDown):
        def construct(self, images):
            f8, f16, f32 = super().construct(ops.sin(images))
            return f8, f16, f32

    with pytest.raises(UserError, match="MindSpore's Sin, .* use format=mindir"):
        export(trained(FCN(Odd(), 3)), tmp_path / "net.onnx")


def test_logits_that_are_not_finite_are_no_base_for_a_comparison(tmp_path):
    network = vgg()
    network.score_fr.weight.set_data(Tensor(np.full((3, 16, 1, 1), np.nan, np.float32)))
    with pytest.raises(UserError, match="not finite"):
        export(network, tmp_path / "net.onnx")


def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path):
    (tmp_path / "there.onnx").touch()
    (tmp_path / "folder.onnx").mkdir()
    for name, expected in {
        "net.onnx": "writes a .mindir file",
        "there.onnx/net.mindir": "folder cannot be written",
    }.items():
        with pytest.raises(UserError, match=expected):
            check_output(tmp_path / name, "mindir")
    for name in ("there.onnx", "folder.onnx"):
        with pytest.raises(UserError, match="exists already"):
            check_output(tmp_path / name, "onnx")


def test_weights_alone_take_no_options():
    for option in ({"normalize": True}, {"argmax": True}, {"size": (64, 64)}, {"batch_size": 2}):
        with pytest.raises(UserError, match="holds weights alone"):
            Specification("safetensors", **option)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("resnet18", "mindir"),
        ("resnet18", "onnx"),
        ("mobilenet_v3_small_100", "onnx"),
        ("convnext_tiny", "onnx"),
    ],
)
def test_mindcv_backbones_are_exported_too(tmp_path, name, suffix):
    network = trained(FCN(MindCVBackbone(name), 3))
    _, parity = export(network, tmp_path / f"net.{suffix}")
    assert parity["inputs"][-1] == "a scene of 2×65×97"
    assert parity["largest_difference"] < 1e-4 * parity["largest_logit"]
