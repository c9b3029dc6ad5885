"""The same networks in PyTorch, for comparison."""

import importlib.util
from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional

from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.utils.errors import UserError


def train_step(cfg: DictConfig) -> Work:
    """Forward, backward and update with SGD and momentum."""
    network, place = _placed(cfg)
    images, labels = (place(torch.from_numpy(array)) for array in random_batch(cfg))
    labels = labels.long()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    ignored = cfg.dataset.ignore_index

    def run() -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(images), labels, ignore_index=ignored)
        loss.backward()
        optimizer.step()
        loss.item()

    return _work(run, network, len(images), cfg)


def inference(cfg: DictConfig, count: int | None = None) -> Work:
    """Images to class ids."""
    network, place = _placed(cfg)
    network.eval()
    images = random_batch(cfg, count)[0]

    @torch.inference_mode()
    def run() -> None:
        network(place(torch.from_numpy(images))).argmax(1).cpu().numpy()

    return _work(run, network, len(images), cfg)


def inference_batch1(cfg: DictConfig) -> Work:
    """The same for a single image."""
    return inference(cfg, count=1)


def _work(run: Callable[[], None], network: nn.Module, images: int, cfg: DictConfig) -> Work:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"parameters": parameters, "layout": cfg.layout}
    peak = (lambda: torch.cuda.max_memory_allocated() / 1e6) if _device(cfg) == "cuda" else None
    return Work(run, images, facts, peak)


def _device(cfg: DictConfig) -> str:
    return "cuda" if cfg.device.target == "GPU" and torch.cuda.is_available() else "cpu"


def _placed(cfg: DictConfig) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The network, and a function that puts a batch where it is, in its layout."""
    torch.manual_seed(cfg.seed)
    if cfg.device.threads is not None:
        torch.set_num_threads(cfg.device.threads)
    last = cfg.layout == "channels_last"
    layout = torch.channels_last if last else torch.contiguous_format
    network = fcn(cfg).to(_device(cfg), memory_format=layout)

    def place(batch: Tensor) -> Tensor:
        return batch.to(_device(cfg), memory_format=layout if batch.ndim == 4 else None)

    return network, place


class FCN(nn.Module):
    """Scores at up to three strides, added and enlarged, as `src.models.fcn.FCN`."""

    def __init__(self, backbone: nn.Module, classes: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.backbone, self.stride = backbone, stride
        strides = [s for s in (32, 16, 8) if s >= stride]
        channels = dict(zip((8, 16, 32), backbone.channels, strict=True))
        self.scores = nn.ModuleList(nn.Conv2d(channels[s], classes, 1, bias=bias) for s in strides)
        factors = [2] * (len(strides) - 1) + [stride]
        self.upscores = nn.ModuleList(
            nn.ConvTranspose2d(classes, classes, 2 * f, f, f // 2, bias=False) for f in factors
        )

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)[::-1]
        scores = self.scores[0](features[0])
        for i, score in enumerate(self.scores[1:]):
            skip = score(features[i + 1])
            scores = self.upscores[i](scores)[..., : skip.shape[2], : skip.shape[3]] + skip
        return self.upscores[-1](scores)[..., : images.shape[2], : images.shape[3]]


def fcn(cfg: DictConfig) -> FCN:
    """The network of a config.

    Raises:
        UserError: The backbone is none of those built here, or needs timm, which is not installed.
    """
    node = cfg.model.backbone
    kind = node["_target_"].rpartition(".")[2]
    if kind == "VGG":
        backbone: nn.Module = VGG(
            node.depth, node.batch_norm, node.head_channels, node.width, node.dropout
        )
    elif kind == "Compact":
        backbone = Compact(node.channels)
    elif node.get("name") in RESNETS:
        backbone = ResNet(*RESNETS[node.name])
    elif node.get("name") in TIMM:
        backbone = Timm(*TIMM[node.name])
    else:
        raise UserError(f"backbone {node.get('name', kind)}: the benchmark has none in PyTorch")
    return FCN(backbone, cfg.model.num_classes, cfg.model.stride, cfg.model.score_bias)


def _convolution(
    c_in: int, c_out: int, kernel: int = 3, stride: int = 1, norm: bool = True, relu: bool = True
) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=not norm)]
    layers += [nn.BatchNorm2d(c_out)] if norm else []
    return layers + ([nn.ReLU(inplace=True)] if relu else [])


class _Stages(nn.Module):
    """Stages whose last three have strides 8, 16 and 32."""

    def __init__(self, stages: list[nn.Sequential], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.stages, self.channels = nn.ModuleList(stages), channels

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[-3:]


VGG_COUNTS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(_Stages):
    """`src.models.backbones.vgg.VGG`: a stage ends with its pool."""

    def __init__(self, depth: int, norm: bool, head: int, width: float, dropout: float) -> None:
        channels = [max(1, round(width * c)) for c in (64, 128, 256, 512, 512, head)]
        stages, c_in = [], 3
        for count, c_out in zip(VGG_COUNTS[depth], channels[:5], strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += _convolution(c_in, c_out, norm=norm)
                c_in = c_out
            stages.append([*layers, nn.MaxPool2d(2, 2, ceil_mode=True)])
        for kernel in (7, 1):
            stages[-1] += _convolution(c_in, channels[5], kernel, norm=norm)
            stages[-1] += [nn.Dropout(dropout)] if dropout else []
            c_in = channels[5]
        super().__init__([nn.Sequential(*s) for s in stages], (channels[2], channels[3], c_in))


class Compact(_Stages):
    """`src.models.backbones.compact.Compact`."""

    def __init__(self, channels: list[int]) -> None:
        stages, c_in = [], 3
        for count, c_out in zip((1, 2, 3, 3, 2), channels, strict=True):
            layers = _convolution(c_in, c_out, stride=2)
            for _ in range(count - 1):
                layers += _convolution(c_out, c_out)
            stages.append(nn.Sequential(*layers))
            c_in = c_out
        super().__init__(stages, tuple(channels[2:]))


# Blocks of the stages, and how much wider a block's output is than its inside
RESNETS = {
    "resnet18": ((2, 2, 2, 2), 1),
    "resnet34": ((3, 4, 6, 3), 1),
    "resnet50": ((3, 4, 6, 3), 4),
    "resnet101": ((3, 4, 23, 3), 4),
}


class ResNet(_Stages):
    """ResNet without its classifier (He et al. 2016); expansion 4 has bottleneck blocks."""

    def __init__(self, counts: tuple[int, ...], expansion: int) -> None:
        stem = nn.Sequential(*_convolution(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1))
        stages, c_in = [stem], 64
        for i, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True)):
            blocks = []
            for j in range(count):
                stride = 2 if i and not j else 1
                blocks.append(_Block(c_in, width, expansion, stride))
                c_in = width * expansion
            stages.append(nn.Sequential(*blocks))
        super().__init__(stages, tuple(expansion * c for c in (128, 256, 512)))


class _Block(nn.Module):
    def __init__(self, c_in: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        c_out = width * expansion
        if expansion == 1:
            body = [
                *_convolution(c_in, width, 3, stride),
                *_convolution(width, c_out, relu=False),
            ]
        else:
            body = [
                *_convolution(c_in, width, 1),
                *_convolution(width, width, 3, stride),
                *_convolution(width, c_out, 1, relu=False),
            ]
        self.body = nn.Sequential(*body)
        shortcut = []
        if c_in != c_out or stride > 1:
            shortcut = _convolution(c_in, c_out, 1, stride, relu=False)
        self.shortcut = nn.Sequential(*shortcut)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


# mindcv's name: timm's, and the channels of the 1×1 convolution that mindcv counts to the features
TIMM = {
    "mobilenet_v3_small_100": ("mobilenetv3_small_100", None),
    "mobilenet_v3_large_100": ("mobilenetv3_large_100", None),
    "efficientnet_b0": ("efficientnet_b0", 1280),
    "efficientnet_b1": ("efficientnet_b1", 1280),
    "efficientnet_b2": ("efficientnet_b2", 1408),
    "convnext_tiny": ("convnext_tiny", None),
    "convnext_small": ("convnext_small", None),
    "convnext_base": ("convnext_base", None),
}


class Timm(nn.Module):
    """The features of a timm model at strides 8, 16 and 32."""

    def __init__(self, name: str, head_channels: int | None) -> None:
        super().__init__()
        if importlib.util.find_spec("timm") is None:
            raise UserError(f"{name}: PyTorch has it through timm (pip install timm)")
        import timm

        self.features = timm.create_model(name, features_only=True)
        info = self.features.feature_info
        self.last = [info.reduction().index(stride) for stride in (8, 16, 32)]
        channels = [info.channels()[i] for i in self.last]
        self.head = nn.Identity()
        if head_channels is not None:
            c_in, channels[-1] = channels[-1], head_channels
            convolution, norm = _convolution(c_in, head_channels, 1, relu=False)
            self.head = nn.Sequential(convolution, norm, nn.SiLU(inplace=True))
        self.channels = tuple(channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.features(images)
        *finer, deepest = (features[i] for i in self.last)
        return [*finer, self.head(deepest)]
