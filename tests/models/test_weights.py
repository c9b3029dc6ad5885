import logging
import os
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from safetensors.numpy import save_file

from src.models.backbones.efficientnet_lite import EfficientNetLite
from src.models.backbones.mindcv import MindCVBackbone
from src.models.backbones.vgg import VGG
from src.models.fcn import FCN
from src.models.weights import load_weights, read_parameters
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB, TUTORIAL_BGR, Normalization
from tests.models.torch_writer import save_torch
from tests.models.tutorial_network import TutorialFCN8s, randomise

Arrays = dict[str, np.ndarray]
ONES = np.ones(1, np.float32)


def tiny(
    stride: int = 8, num_classes: int = 3, depth: int = 11, width: float = 0.05, **values
) -> FCN:
    network = FCN(VGG(depth, width=width, head_channels=320, **values), num_classes, stride)
    randomise(network)
    return network


def arrays(network: nn.Cell) -> Arrays:
    return {name: p.asnumpy().copy() for name, p in network.parameters_dict().items()}


def write(content: Arrays, path: Path) -> Path:
    entries = [{"name": name, "data": Tensor(value)} for name, value in content.items()]
    ms.save_checkpoint(entries, str(path), format=path.suffix[1:])
    return path


def backbone_of(network: FCN) -> Arrays:
    return {name: a for name, a in arrays(network).items() if name.startswith("backbone.")}


def same(left: Arrays, right: Arrays, names: list[str]) -> bool:
    return len(names) > 0 and all(np.array_equal(left[name], right[name]) for name in names)


def test_checkpoint_of_ours_loads_in_full(tmp_path):
    trained, network = tiny(), tiny()
    path = tmp_path / "best.ckpt"
    ms.save_checkpoint(trained, str(path))
    report = load_weights(network, path, strict=True)
    assert report.key_map == "this project's"
    assert report.normalization is None
    assert report.fraction == 1.0
    assert same(arrays(network), arrays(trained), list(arrays(network)))


def test_tutorials_checkpoint_gives_the_tutorials_function(tmp_path):
    original = TutorialFCN8s(num_classes=3, channels=(3, 6, 13, 26, 26, 16))
    randomise(original)
    path = tmp_path / "FCN8s.ckpt"
    ms.save_checkpoint(original, str(path))
    network = tiny(depth=16)
    report = load_weights(network, path, strict=True)
    assert report.key_map == "the tutorial's"
    assert report.normalization == TUTORIAL_BGR
    batch = Tensor(np.random.randn(2, 3, 96, 64).astype(np.float32))
    expected = original.set_train(False)(batch).asnumpy()
    logits = network.set_train(False)(batch).asnumpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


# Where torchvision's VGGs, counted by torchvision, keep their convolutions
FEATURES = {
    (11, True): (0, 4, 8, 11, 15, 18, 22, 25),
    (11, False): (0, 3, 6, 8, 11, 13, 16, 18),
    (13, True): (0, 3, 7, 10, 14, 17, 21, 24, 28, 31),
    (16, True): (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
    (16, False): (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    (19, True): (0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49),
}
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
TORCH_NORM = ("weight", "bias", "running_mean", "running_var")


def renamed(
    content: Arrays, prefix: str, indices: tuple[int, ...], norm: tuple[str, ...]
) -> Arrays:
    """A backbone of ours under the names `{prefix}.{index}`, as a classifier with dense layers."""
    cells = list(dict.fromkeys(name.rpartition(".")[0] for name in content))
    convolutions = [c for c in cells if content.get(f"{c}.weight", np.zeros(0)).ndim == 4]
    result: Arrays = {}
    for cell, index in zip(convolutions, indices, strict=False):
        result[f"{prefix}.{index}.weight"] = content[f"{cell}.weight"]
        block, place = cell.rsplit(".", 1)
        following = f"{block}.{int(place) + 1}"
        if f"{cell}.bias" in content:
            result[f"{prefix}.{index}.bias"] = content[f"{cell}.bias"]
        for ours, theirs in zip(NORM, norm, strict=True):
            if f"{following}.gamma" in content:
                result[f"{prefix}.{index + 1}.{theirs}"] = content[f"{following}.{ours}"]
    for ours, theirs in (("conv6", "classifier.0"), ("conv7", "classifier.3")):
        weight = content[f"backbone.{ours}.0.weight"]
        result[f"{theirs}.weight"] = weight.reshape(len(weight), -1)
        bias = content.get(f"backbone.{ours}.0.bias", np.ones(len(weight), np.float32))
        result[f"{theirs}.bias"] = bias
    result["classifier.6.weight"] = np.ones((1000, 16), np.float32)
    return result


@pytest.mark.parametrize(("depth", "batch_norm"), FEATURES)
@pytest.mark.parametrize(
    ("prefix", "norm", "title", "normalization"),
    [
        ("features", TORCH_NORM, "torchvision's", IMAGENET_RGB),
        ("layers", NORM, "the MindSpore model zoo's", TUTORIAL_BGR),
    ],
)
def test_classifiers_with_counted_layers_load(
    tmp_path, depth, batch_norm, prefix, norm, title, normalization
):
    source = backbone_of(tiny(depth=depth, batch_norm=batch_norm))
    path = write(renamed(source, prefix, FEATURES[depth, batch_norm], norm), tmp_path / "v.ckpt")
    network = tiny(depth=depth, batch_norm=batch_norm)
    report = load_weights(network, path)
    assert (report.key_map, report.normalization) == (title, normalization)
    new = [
        f"backbone.conv{block}.1.{leaf}"
        for block in (6, 7)
        for leaf in ("moving_variance", "gamma", "beta")
        if batch_norm
    ]
    shifted = [f"backbone.conv{block}.1.moving_mean" for block in (6, 7)]
    assert [name for name in report.missing if name.startswith("backbone.")] == new
    assert same(arrays(network), source, [n for n in source if n not in [*new, *shifted]])
    assert report.left_over == ["classifier.6.weight"]


def test_bias_of_a_normalised_convolution_moves_into_the_mean(tmp_path):
    """torchvision's VGGs with batch normalisation have biases, ours have none."""
    source = backbone_of(tiny())
    content = renamed(source, "features", FEATURES[11, True], TORCH_NORM)
    content["features.0.bias"] = np.array([1, 2, 3], np.float32)
    network = FCN(VGG(11, width=0.05, head_channels=320), 3)
    report = load_weights(network, write(content, tmp_path / "vgg11_bn.ckpt"))
    assert report.left_over == ["classifier.6.weight"]
    mean = network.backbone.conv1[1].moving_mean.asnumpy()
    assert np.allclose(mean, content["features.1.running_mean"] - [1, 2, 3])
    # fc6 of the file has no normalisation: before training, ours has the file's function there
    fc6 = nn.Conv2d(26, 16, 7, pad_mode="same", has_bias=True)
    fc6.weight.set_data(Tensor(source["backbone.conv6.0.weight"]))
    fc6.bias.set_data(Tensor(content["classifier.0.bias"]))
    batch = Tensor(np.random.randn(1, 26, 3, 3).astype(np.float32))
    expected = fc6(batch).asnumpy().clip(min=0)
    ours = network.backbone.conv6.set_train(False)(batch).asnumpy()
    assert np.abs(ours - expected).max() < 1e-4


def test_feature_extractor_naming_loads(tmp_path):
    source = backbone_of(tiny(depth=16))
    content = {}
    for name, value in source.items():
        block, place, leaf = name.removeprefix("backbone.").split(".")
        if block not in ("conv6", "conv7") and not leaf.startswith("moving"):
            step, part = divmod(int(place), 3)
            content[f"vgg16_feature_extractor.{block}_{step + 1}.{part}.{leaf}"] = value
    assert "vgg16_feature_extractor.conv5_3.1.beta" in content
    network = tiny(depth=16)
    report = load_weights(network, write(content, tmp_path / "vgg16.ckpt"))
    assert (report.key_map, report.normalization) == ("vgg16_feature_extractor", TUTORIAL_BGR)
    assert len(report.loaded) == 13 * 3 == len(content)
    assert same(arrays(network), source, report.loaded)


def test_pretrained_file_of_the_tutorial_leaves_the_score_layers_new(tmp_path):
    source = backbone_of(tiny(depth=16))
    content = {name.removeprefix("backbone."): value for name, value in source.items()}
    network = FCN(VGG(16, width=0.05, head_channels=320), 3)
    report = load_weights(network, write(content, tmp_path / "fcn8s_vgg16_pretrain.ckpt"))
    assert (report.key_map, report.fraction) == ("the tutorial's", 1.0)
    assert same(arrays(network), source, list(source))
    assert not network.score_fr.weight.asnumpy().any()


def test_mindcvs_own_checkpoint_loads_into_its_backbone(tmp_path):
    from mindcv import create_model

    original = create_model("mobilenet_v3_small_100")
    randomise(original)
    ms.save_checkpoint(original, str(tmp_path / "mobilenet.ckpt"))
    network = FCN(MindCVBackbone("mobilenet_v3_small_100"), 3)
    report = load_weights(network, tmp_path / "mobilenet.ckpt")
    assert (report.key_map, report.fraction) == ("mindcv's", 1.0)
    assert report.normalization == IMAGENET_RGB
    ours = network.backbone.features.net.features_1.gamma
    assert np.array_equal(ours.asnumpy(), original.features[1].gamma.asnumpy())


def test_torchvisions_resnet_loads_into_mindcvs(tmp_path):
    network = FCN(MindCVBackbone("resnet18"), 3)
    content = {"fc.weight": np.ones((1000, 512), np.float32)}
    for name in network.backbone.mindcv_names.values():
        shape = network.parameters_dict()[f"backbone.features.net.{name}"].shape
        for ours, theirs in zip(NORM, TORCH_NORM, strict=True):
            name = name.replace(f".{ours}", f".{theirs}")
        content[name.replace("down_sample", "downsample")] = np.full(shape, 2, np.float32)
    assert {"bn1.running_var", "layer2.0.downsample.1.weight"} <= content.keys()
    report = load_weights(network, write(content, tmp_path / "resnet18.ckpt"))
    assert (report.key_map, report.fraction) == ("torchvision's", 1.0)
    assert report.left_over == ["fc.weight"]
    assert np.all(network.backbone.features.net.layer2[0].down_sample[1].gamma.asnumpy() == 2)


def test_finer_strides_continue_from_coarser_ones(tmp_path):
    previous = tiny(stride=32)
    for stride, new in [(16, ["upscore2", "score_pool4"]), (8, ["upscore_pool4", "score_pool3"])]:
        path = write(arrays(previous), tmp_path / f"{stride}.ckpt")
        network = FCN(VGG(11, width=0.05, head_channels=320), 3, stride)
        report = load_weights(network, path)
        assert report.missing == [f"{name}.weight" for name in [*new, f"upscore{stride}"]]
        assert same(arrays(network), arrays(previous), report.loaded)
        assert not arrays(network)[f"{new[1]}.weight"].any()
        previous = network


def test_other_number_of_classes_starts_with_new_scores(tmp_path):
    source, network = tiny(num_classes=21), FCN(VGG(11, width=0.05, head_channels=320), 4)
    report = load_weights(network, write(arrays(source), tmp_path / "voc.ckpt"))
    assert report.fraction == 1.0
    assert report.shape_mismatch["score_fr.weight"] == ((21, 16, 1, 1), (4, 16, 1, 1))
    assert set(report.shape_mismatch) == {n for n in arrays(network) if "score" in n}
    assert not network.score_fr.weight.asnumpy().any()


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"num_classes": 4}, "trained for 3 classes, the network has 4; .*num_classes=3"),
        ({"stride": 16}, "not in the file: upscore16.weight; not in the network: upscore_pool4"),
        ({"depth": 13}, "is not of this network .not in the file: backbone.conv1.3.weight"),
        ({"width": 0.1}, "of another shape: backbone.conv1.0.weight 3×3×3×3 in the file, 6×3×3×3"),
    ],
)
def test_strict_loading_wants_all_to_match(tmp_path, network, expected):
    path = write(arrays(tiny()), tmp_path / "best.ckpt")
    network = tiny(**network)
    before = arrays(network)
    with pytest.raises(UserError, match=expected) as error:
        load_weights(network, path, strict=True)
    assert "\n" not in str(error.value)
    assert same(arrays(network), before, list(before))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"width": 0.1}, "another depth or width .backbone.conv1.0.weight 3×3×3×3 in the file"),
        (
            {"batch_norm": False},
            "of a network with batch normalisation, this backbone is one without; "
            "take model/backbone=vgg16 or model.backbone.batch_norm=true",
        ),
    ],
)
def test_backbones_of_another_kind_are_refused(tmp_path, network, expected):
    source = arrays(tiny())
    path = write({n.removeprefix("backbone."): v for n, v in source.items()}, tmp_path / "v.ckpt")
    network = tiny(**network)
    before = arrays(network)
    with pytest.raises(UserError, match=expected):
        load_weights(network, path)
    assert same(arrays(network), before, list(before))


@pytest.mark.parametrize(("file", "network"), [(16, 19), (19, 16), (11, 13), (13, 16)])
def test_counted_layers_of_another_depth_are_refused(tmp_path, file, network):
    source = backbone_of(tiny(depth=file))
    content = renamed(source, "features", FEATURES[file, True], TORCH_NORM)
    path = write(content, tmp_path / "vgg.ckpt")
    with pytest.raises(UserError, match="of a backbone of another depth or width"):
        load_weights(tiny(depth=network), path)


def test_plain_weights_are_refused_by_a_normalised_backbone(tmp_path):
    source = backbone_of(tiny(batch_norm=False))
    content = renamed(source, "features", FEATURES[11, False], TORCH_NORM)
    with pytest.raises(UserError, match="without batch normalisation.*backbone=vgg16_plain"):
        load_weights(tiny(), write(content, tmp_path / "vgg11.ckpt"))


def test_file_of_another_network_is_refused_with_the_names_it_has(tmp_path):
    path = write({"encoder.layer.0.query.weight": np.ones((4, 4), np.float32)}, tmp_path / "b.ckpt")
    with pytest.raises(UserError) as error:
        load_weights(tiny(), path)
    message = str(error.value)
    assert "holds 0% of the backbone's parameters; it has encoder.layer.0.query.weight" in message
    assert "expected backbone.conv1.0.weight" in message


def test_optimizer_states_are_ignored_also_in_strict_mode(tmp_path):
    content = arrays(tiny())
    for name in list(content):
        content[f"moments.{name}"] = content[name]
    for name in ("global_step", "learning_rate", "momentum", "epoch_num"):
        content[name] = np.zeros((), np.float32)
    report = load_weights(tiny(), write(content, tmp_path / "FCN8s-1_10.ckpt"), strict=True)
    assert report.left_over == []


def test_half_precision_files_become_single_precision(tmp_path):
    half = {name: value.astype(np.float16) for name, value in arrays(tiny()).items()}
    network = tiny()
    load_weights(network, write(half, tmp_path / "half.ckpt"), strict=True)
    weight = network.backbone.conv1[0].weight
    assert weight.dtype == ms.float32
    assert np.array_equal(weight.asnumpy().astype(np.float16), half["backbone.conv1.0.weight"])


def test_safetensors_load(tmp_path):
    source, network = tiny(), tiny()
    path = write(arrays(source), tmp_path / "fcn.safetensors")
    assert load_weights(network, path, strict=True).fraction == 1.0
    assert same(arrays(network), arrays(source), list(arrays(source)))


def test_a_safetensors_file_of_ours_brings_its_normalisation(tmp_path):
    about = {"color_order": "bgr", "mean": "[1.0, 2.0, 3.0]", "std": "[4.0, 5.0, 6.0]"}
    weights = {name: value.astype(np.float32) for name, value in arrays(tiny()).items()}
    save_file(weights, tmp_path / "fcn.safetensors", metadata=about)
    report = load_weights(tiny(), tmp_path / "fcn.safetensors")
    assert report.normalization == Normalization("bgr", (1, 2, 3), (4, 5, 6))


def test_torch_files_load_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    source, network = backbone_of(tiny()), tiny()
    content = renamed(source, "features", FEATURES[11, True], TORCH_NORM)
    content["features.1.num_batches_tracked"] = np.array(7)
    path = save_torch({"state_dict": content, "epoch": 3}, tmp_path / "vgg11_bn.pth")
    report = load_weights(network, path)
    assert (report.key_map, report.normalization) == ("torchvision's", IMAGENET_RGB)
    assert len(report.loaded) == 8 * 5 + 2 * 2  # of fc6 and fc7 the weights and the biases
    assert "features.1.num_batches_tracked" not in report.left_over
    assert same(arrays(network), source, [n for n in report.loaded if "conv1" in n])


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "model.", "model.model.", "backbone.", "net."]
    + ["encoder.", "module.model.encoder."],
)
def test_what_frameworks_put_before_the_names_is_seen_through(tmp_path, prefix):
    source, network = backbone_of(tiny()), tiny()
    content = renamed(source, "features", FEATURES[11, True], TORCH_NORM)
    content = {f"{prefix}{name}": value for name, value in content.items()}
    content["decode_head.conv.weight"] = np.ones((1, 1, 1, 1))
    report = load_weights(network, save_torch(content, tmp_path / "x.pth"))
    assert report.key_map == "torchvision's"
    assert len(report.loaded) == 8 * 5 + 2 * 2
    assert report.left_over[-1] == "decode_head.conv.weight"
    assert same(arrays(network), source, [n for n in report.loaded if "conv1" in n])


def test_dataparallel_around_a_part_of_the_network_is_seen_through(tmp_path):
    source, network = backbone_of(tiny()), tiny()
    content = renamed(source, "features.module", FEATURES[11, True], TORCH_NORM)
    report = load_weights(network, save_torch(content, tmp_path / "x.pth"))
    assert len(report.loaded) == 8 * 5 + 2 * 2


def test_whole_torch_networks_lend_their_backbone(tmp_path):
    """torchvision's fcn_resnet has a `backbone.`, and a head whose names begin alike."""
    network = FCN(MindCVBackbone("resnet18"), 3)
    content = {"classifier.0.weight": np.ones((1, 1, 1, 1)), "classifier.1.running_mean": ONES}
    for name in network.backbone.mindcv_names.values():
        shape = network.parameters_dict()[f"backbone.features.net.{name}"].shape
        for ours, theirs in zip(NORM, TORCH_NORM, strict=True):
            name = name.replace(f".{ours}", f".{theirs}")
        content[f"backbone.{name.replace('down_sample', 'downsample')}"] = np.full(shape, 2.0)
    report = load_weights(network, save_torch(content, tmp_path / "fcn_resnet18.pth"))
    assert (report.key_map, report.prefix, report.fraction) == ("torchvision's", "backbone.", 1.0)
    assert report.left_over == ["classifier.0.weight", "classifier.1.running_mean"]


def test_published_efficientnet_lite_brings_its_normalisation(tmp_path):
    source, network = EfficientNetLite(0), FCN(EfficientNetLite(0), 3)
    randomise(source)
    content = {source.published_names[n]: p.asnumpy() for n, p in source.parameters_and_names()}
    content["_fc.weight"] = np.ones((1000, 1280))
    report = load_weights(network, save_torch(content, tmp_path / "lite0.pth"))
    assert (report.key_map, report.fraction) == ("the published", 1.0)
    assert report.normalization == Normalization("rgb", (127, 127, 127), (128, 128, 128))
    weight = network.backbone.blocks[3].expand_conv.weight.asnumpy()
    assert np.array_equal(weight, source.blocks[3].expand_conv.weight.asnumpy())


def test_torch_file_that_ends_like_mindspores_is_known_by_its_content(tmp_path):
    content = renamed(backbone_of(tiny()), "features", FEATURES[11, True], TORCH_NORM)
    path = save_torch({"state_dict": content}, tmp_path / "epoch3.ckpt")
    assert load_weights(tiny(), path).key_map == "torchvision's"
    with pytest.raises(UserError, match="lightning.ckpt: a PyTorch Lightning checkpoint"):
        read_parameters(Path(__file__).parent / "data" / "lightning.ckpt")


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.pth.tar"])
def test_damaged_torch_files_are_named(tmp_path, name):
    whole = save_torch({"w": ONES}, tmp_path / "whole.pth").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a readable .* checkpoint of"):
            read_parameters(tmp_path / name)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_damaged_files_are_named(tmp_path, suffix, damage):
    path = write(arrays(tiny()), tmp_path / f"broken{suffix}")
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "foreign": b"<html>"}[damage])
    with pytest.raises(UserError, match=f"broken{suffix}: not a readable {suffix} checkpoint"):
        read_parameters(path)


def test_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = save_torch({"w": ONES}, tmp_path / "theirs.pth")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(UserError, match="theirs.pth: may not be read by this user"):
        read_parameters(path)


def test_missing_file_and_unknown_kind_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing.ckpt: no such file"):
        read_parameters(tmp_path / "nothing.ckpt")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(UserError, match="expected a .ckpt, .safetensors, .pth or .pt file"):
        read_parameters(tmp_path / "weights.h5")


def test_one_line_sums_up_what_was_loaded(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    caplog.set_level(logging.INFO, logger="src.models.weights")
    path = write(arrays(tiny(stride=32)), tmp_path / "coarse.ckpt")
    load_weights(tiny(stride=16), path)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].endswith(
        "this project's names; 50 of 50 parameters of the backbone loaded, "
        "1 of the score and upscore layers"
    )
    assert lines[1:] == [
        "new, not in the file: upscore2.weight, score_pool4.weight, upscore16.weight",
        "in the file, but not used: upscore32.weight",
    ]
