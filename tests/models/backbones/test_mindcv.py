from pathlib import Path

import mindspore as ms
import numpy as np
import pooch
import pytest
import requests
from mindspore import Tensor
from omegaconf import OmegaConf

from src.models.backbones.mindcv import MindCVBackbone
from src.models.fcn import FCN
from src.utils.errors import UserError

CONF = Path(__file__).parents[3] / "conf" / "model" / "backbone"
SMALL = "mobilenet_v3_small_100"


def images(height: int, width: int) -> Tensor:
    return Tensor(np.random.randn(1, 3, height, width).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", (128, 256, 512)), (SMALL, (24, 48, 576))]
)
def test_features_have_the_published_channels_and_rounded_up_sizes(name, channels):
    backbone = MindCVBackbone(name)
    assert backbone.channels == channels
    for size in [(64, 96), (65, 97), (31, 47)]:
        shapes = [features.shape for features in backbone(images(*size))]
        assert shapes == [
            (1, c, -(-size[0] // stride), -(-size[1] // stride))
            for c, stride in zip(channels, (8, 16, 32), strict=True)
        ]


def test_dynamic_graph_runs_all_sizes(graph_mode):
    network = FCN(MindCVBackbone(SMALL), 3).set_train(False)
    network.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    for size in [(64, 96), (33, 50)]:
        assert network(images(*size)).shape == (1, 3, *size)


def test_every_config_names_a_model_that_hands_out_features():
    from mindcv.models import registry

    configs = [OmegaConf.load(path) for path in CONF.glob("*.yaml")]
    names = [c.name for c in configs if "MindCV" in c.get("_target_", "")]
    assert len(names) >= 9
    for name in names:
        module = registry.model_entrypoint(name).__module__
        assert module.endswith(("resnet", "mobilenetv3", "efficientnet", "convnext", "hrnet"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet5", "mindcv has no such model; did you mean 'resnet50'?"),
        ("vgg16", "hands out no features; for a VGG take model/backbone=vgg16; families that do: "),
        ("swin_tiny", "hands out no features; families that do: convnext, efficientnet, hrnet"),
        ("rexnet_10", "hands out no features"),
    ],
)
def test_models_without_features_are_refused(name, expected):
    with pytest.raises(UserError, match=r"backbone '" + name) as error:
        MindCVBackbone(name)
    assert expected in str(error.value)


def test_failed_download_tells_the_repair(monkeypatch):
    def fail(*args, **kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(UserError) as error:
        MindCVBackbone(SMALL, pretrained=True)
    message = str(error.value)
    assert "could not be fetched (no route to host)" in message
    assert "give model.weights=FILE" in message
    assert "\n" not in message


def test_mirror_stands_in_for_mindcvs_address(monkeypatch):
    asked = []

    def fail(url, **kwargs):
        asked.append(url)
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(UserError):
        MindCVBackbone(SMALL, pretrained=True)
    with pytest.raises(UserError, match="https://mirror.example/mindspore/toolkits/mindcv/"):
        MindCVBackbone(SMALL, pretrained=True, mirror="https://mirror.example/mindspore/")
    origin, mirror = asked
    assert mirror == origin.replace("download.mindspore.cn", "mirror.example/mindspore")


def test_model_without_published_weights_is_refused_if_pretrained():
    with pytest.raises(UserError, match="mindcv has no weights of it"):
        MindCVBackbone("mobilenet_v2_035_96", pretrained=True)


def test_pretrained_weights_reach_the_backbone(monkeypatch, tmp_path):
    from mindcv import create_model
    from mindcv.models import helpers

    original = create_model(SMALL)
    monkeypatch.setattr(helpers, "get_checkpoint_download_root", lambda: str(tmp_path))
    monkeypatch.setattr(
        pooch,
        "retrieve",
        lambda url, known_hash, fname, path: ms.save_checkpoint(original, str(path / fname)),
    )
    backbone = MindCVBackbone(SMALL, pretrained=True)
    expected = original.parameters_dict()
    for name, parameter in backbone.parameters_and_names():
        stored = expected[backbone.mindcv_names[name]]
        assert np.array_equal(parameter.asnumpy(), stored.asnumpy())
