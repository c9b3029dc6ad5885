import pytest
from omegaconf import OmegaConf

from src.benchmark import model
from src.benchmark.__main__ import NAMES, chosen_names
from src.cli.command import compose_config
from src.utils.errors import UserError


def config(*overrides: str):
    cfg = compose_config("benchmark", ["dataset.crop_size=[64,32]", *overrides])
    cfg.output_dir = "somewhere"
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


def test_multiply_accumulates_are_those_of_all_convolutions():
    cfg = config("model/backbone=compact", "model.backbone.channels=[1,1,1,1,1]", "model.stride=32")
    facts = model.count(cfg).facts
    # 3×3 kernels on maps of 512, 128, 32, 8 and 2 pixels, as deep as the stages are
    first = 512 * 9 * 3
    others = 9 * (2 * 128 + 3 * 32 + 3 * 8 + 2 * 2)
    score, upscore = 2 * 21, 2 * 21 * 21 * 64 * 64  # each of two pixels meets the whole kernel
    assert facts["first_macs"] == first
    assert facts["macs"] == first + others + score + upscore
    assert facts["first_bytes"] == 4 * (3 * 64 * 32 + 512)
    between = (512 + 128) + 2 * 128 + (128 + 32) + 4 * 32 + (32 + 8) + 4 * 8 + (8 + 2) + 2 * 2
    scores = (2 + 2 * 21) + (2 * 21 + 21 * 64 * 32)
    assert facts["bytes"] == facts["first_bytes"] + 4 * (between + scores)
    norms = 2 * 11
    assert facts["parameters"] == 27 + 10 * 9 + norms + 21 + 21 * 21 * 64 * 64


def test_only_takes_a_name_or_a_list_and_keeps_the_order():
    assert chosen_names(None) == list(NAMES)
    assert chosen_names("model") == ["model"]
    assert chosen_names(OmegaConf.create(["inference", "train_step"])) == [
        "train_step",
        "inference",
    ]
    with pytest.raises(UserError, match="only=inferense: no such.*did you mean 'inference'"):
        chosen_names("inferense")


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize(
    "backbone",
    [["vgg16", "width=0.1"], ["vgg16_plain", "width=0.1", "depth=11"], ["compact"], ["resnet18"]],
    ids=lambda b: b[0],
)
def test_the_network_in_pytorch_has_as_many_parameters(backbone, stride):
    torch = pytest.importorskip("torch")
    from src.benchmark.pytorch import fcn

    name, *values = backbone
    cfg = config(f"model/backbone={name}", *(f"model.backbone.{v}" for v in values))
    cfg.model.stride = stride
    network = fcn(cfg)
    assert sum(p.numel() for p in network.parameters()) == model.count(cfg).facts["parameters"]
    assert network(torch.zeros(1, 3, 40, 50)).shape == (1, 21, 40, 50)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"])
def test_the_network_of_timm_has_as_many_parameters_at_the_same_strides(backbone):
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    from src.benchmark.pytorch import fcn

    cfg = config(f"model/backbone={backbone}", "model.backbone.pretrained=false")
    network = fcn(cfg)
    assert sum(p.numel() for p in network.parameters()) == model.count(cfg).facts["parameters"]
    assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 21, 64, 96)
