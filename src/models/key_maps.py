"""The names that checkpoints of the world give to the parameters of our networks."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from mindspore import nn

from src.models.backbones.efficientnet_lite import EfficientNetLite
from src.models.backbones.vgg import VGG
from src.models.torch_files import TORCH_NAMES
from src.utils.normalization import IMAGENET_RGB, TUTORIAL_BGR, Normalization


@dataclass(frozen=True)
class KeyMap:
    """One way to name the parameters of a network.

    Attributes:
        title: What such a file is called in log lines.
        names: From our name to the file's, for the parameters that such files can hold.
        normalization: What these weights expect of an image; None if the names do not say.
        biases: From our mean of a normalisation to the file's bias of the convolution before it,
            which has none here: the mean takes it over, with the opposite sign.
    """

    title: str
    names: dict[str, str]
    normalization: Normalization | None = None
    biases: dict[str, str] = field(default_factory=dict)

    def count(self, stored: Iterable[str]) -> Counter[str]:
        """How many of these names `stored` has behind each prefix, as `""` or `"encoder."`."""
        wanted = set(self.names.values())
        return Counter(
            prefix for name in stored for prefix, rest in _splits(name) if rest in wanted
        )


def key_maps_of(network: nn.Cell) -> list[KeyMap]:
    """All key maps that fit the network; of two that explain a file equally well, the first counts.

    Args:
        network: An `FCN`.
    """
    ours = list(network.parameters_dict())
    inner = {name: name.removeprefix("backbone.") for name in ours}
    backbone = network.backbone
    found = [KeyMap("this project's", {name: name for name in ours})]
    if isinstance(backbone, VGG):
        extractor = {c.name: c.extractor for c in _cells(backbone)}
        zoo = {c.name: f"layers.{c.index}" for c in _cells(backbone)} | _HEAD
        torch = {c.name: f"features.{c.index}" for c in _cells(backbone)} | _HEAD
        return [
            *found,
            KeyMap("the tutorial's", inner, TUTORIAL_BGR),
            _of_cells("vgg16_feature_extractor", ours, extractor, TUTORIAL_BGR),
            _of_cells("the MindSpore model zoo's", ours, zoo, TUTORIAL_BGR),
            _of_cells("torchvision's", ours, torch, IMAGENET_RGB, _torch_leaf),
        ]
    if isinstance(backbone, EfficientNetLite):
        published = {f"backbone.{own}": name for own, name in backbone.published_names.items()}
        return [*found, KeyMap("the published", published, backbone.normalization)]
    if hasattr(backbone, "mindcv_names"):
        mindcv = {f"backbone.{name}": plain for name, plain in backbone.mindcv_names.items()}
        torch = {name: _torchvision_resnet(plain) for name, plain in mindcv.items()}
        return [
            *found,
            KeyMap("mindcv's", mindcv, IMAGENET_RGB),
            KeyMap("torchvision's", torch, IMAGENET_RGB),
        ]
    return [*found, KeyMap("the backbone's own", inner)]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """`a.b` → ("", "a.b"), ("a.", "b")."""
    parts = name.split(".")
    for i in range(len(parts)):
        yield "".join(f"{part}." for part in parts[:i]), ".".join(parts[i:])


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
    return TORCH_NAMES.get(leaf, leaf)


def _of_cells(
    title: str,
    ours: Collection[str],
    cells: dict[str, str],
    normalization: Normalization,
    leaf_name: Callable[[str], str] = str,
) -> KeyMap:
    """The key_map that gives new names to whole cells, and to the leaves in them."""
    names, biases = {}, {}
    for name in ours:
        cell, _, leaf = name.rpartition(".")
        if cell in cells:
            names[name] = f"{cells[cell]}.{leaf_name(leaf)}"
        block, _, place = cell.rpartition(".")
        if leaf == "moving_mean" and (convolution := f"{block}.{int(place) - 1}") in cells:
            biases[name] = f"{cells[convolution]}.bias"
    return KeyMap(title, names, normalization, biases)


def _torchvision_resnet(mindcv_name: str) -> str:
    cell, _, leaf = mindcv_name.rpartition(".")
    return f"{cell.replace('down_sample', 'downsample')}.{_torch_leaf(leaf)}"
