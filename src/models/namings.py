"""The names that checkpoints of the world give to the parameters of our networks."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from mindspore import nn

from src.models.vgg import VGG
from src.utils.normalization import IMAGENET_RGB, TUTORIAL_BGR, Normalization

_TORCH = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Naming:
    """One way to name the parameters of a network.

    Attributes:
        title: What such a file is called in log lines.
        names: From our name to the file's, for the parameters that such files can hold.
        normalization: What these weights expect of an image; None if the names do not say.
    """

    title: str
    names: dict[str, str]
    normalization: Normalization | None = None

    def count(self, stored: Collection[str]) -> int:
        """How many of the network's parameters `stored` holds under these names."""
        return sum(name in stored for name in self.names.values())


def namings_of(network: nn.Cell) -> list[Naming]:
    """All namings that fit the network; of two that explain a file equally well, the first counts.

    Args:
        network: An `FCN`.
    """
    ours = list(network.parameters_dict())
    inner = {name: name.removeprefix("backbone.") for name in ours}
    backbone = network.backbone
    found = [Naming("this project's", {name: name for name in ours})]
    if isinstance(backbone, VGG):
        extractor = _renamed(ours, {c.name: c.extractor for c in _cells(backbone)})
        zoo = _renamed(ours, {c.name: f"layers.{c.index}" for c in _cells(backbone)} | _HEAD)
        torch = {c.name: f"features.{c.index}" for c in _cells(backbone)} | _HEAD
        return [
            *found,
            Naming("the tutorial's", inner, TUTORIAL_BGR),
            Naming("vgg16_feature_extractor", extractor, TUTORIAL_BGR),
            Naming("the MindSpore model zoo's", zoo, TUTORIAL_BGR),
            Naming("torchvision's", _renamed(ours, torch, _torch_leaf), IMAGENET_RGB),
        ]
    if hasattr(backbone, "mindcv_names"):
        mindcv = {f"backbone.{name}": plain for name, plain in backbone.mindcv_names.items()}
        torch = {name: _torchvision_resnet(plain) for name, plain in mindcv.items()}
        return [
            *found,
            Naming("mindcv's", mindcv, IMAGENET_RGB),
            Naming("torchvision's", torch, IMAGENET_RGB),
        ]
    return [*found, Naming("the backbone's own", inner)]


@dataclass(frozen=True)
class _VGGCell:
    name: str  # ours: backbone.conv3.1
    extractor: str  # vgg16_feature_extractor.conv3_1.1
    index: int  # place in one long sequence of all cells, pools among them


def _cells(backbone: VGG) -> Iterator[_VGGCell]:
    index = 0
    for block in range(1, 6):
        cells = getattr(backbone, f"conv{block}")
        convolution = 0
        for place, cell in enumerate(cells):
            if isinstance(cell, nn.Conv2d):
                convolution, first = convolution + 1, place
            extractor = f"vgg16_feature_extractor.conv{block}_{convolution}.{place - first}"
            yield _VGGCell(f"backbone.conv{block}.{place}", extractor, index)
            index += 1
        index += 1  # the pool


# The fully connected layers of a VGG classifier; 1 and 4 are ReLU, 2 and 5 dropout
_HEAD = {"backbone.conv6.0": "classifier.0", "backbone.conv7.0": "classifier.3"}


def _torch_leaf(leaf: str) -> str:
    return _TORCH.get(leaf, leaf)


def _renamed(
    names: Collection[str], cells: dict[str, str], leaf_name: Callable[[str], str] = str
) -> dict[str, str]:
    """From parameter name to parameter name, where the cell that holds it has a new name."""
    split = {name: name.rpartition(".")[::2] for name in names}
    return {
        name: f"{cells[cell]}.{leaf_name(leaf)}"
        for name, (cell, leaf) in split.items()
        if cell in cells
    }


def _torchvision_resnet(mindcv_name: str) -> str:
    cell, _, leaf = mindcv_name.rpartition(".")
    return f"{cell.replace('down_sample', 'downsample')}.{_torch_leaf(leaf)}"
