"""A residual backbone with a way back up, to be trained from random weights on a CPU."""

from collections.abc import Sequence

from mindspore import Tensor, nn

from src.models.layers import conv_norm_relu, cut
from src.utils.errors import UserError


class Pyramid(nn.Cell):
    """Residual stages down to stride 32; each finer map is then merged with the coarser one.

    An FCN scores each of its maps by itself, so what lies around an edge is known to the edge only
    if the finer maps bring it: a transposed convolution enlarges the coarser map, the sum goes
    through a 3×3 convolution (Lin et al. 2017, feature pyramid networks). Dense 3×3 convolutions
    throughout and no pooling: on a CPU depthwise ones and pooling cost more than they save.
    There are no pretrained weights for it.

    Args:
        channels: Of the stages, at strides 8, 16 and 32.
        blocks: Residual blocks, two convolutions each, of the same stages.
        stem_channels: Of the two strided convolutions before them, at strides 2 and 4.
        detail_channels: Of one more map, at stride 4, for a network that predicts there: what is
            thinner than 8 pixels is lost to a coarser one. None: there is none.
    """

    def __init__(
        self,
        channels: Sequence[int] = (80, 160, 256),
        blocks: Sequence[int] = (2, 2, 2),
        stem_channels: Sequence[int] = (32, 64),
        detail_channels: int | None = None,
    ) -> None:
        super().__init__()
        for name, numbers, length in (
            ("channels", channels, 3),
            ("blocks", blocks, 3),
            ("stem_channels", stem_channels, 2),
        ):
            if len(numbers) != length or min(numbers) < 1:
                raise UserError(
                    f"model.backbone.{name}={list(numbers)}: expected {length} positive numbers"
                )
        stem2, stem4 = stem_channels
        stride8, stride16, stride32 = channels
        self.stem = nn.SequentialCell(
            _conv_norm_relu(3, stem2, stride=2) + _conv_norm_relu(stem2, stem4, stride=2)
        )
        self.stage8 = _stage(stem4, stride8, blocks[0])
        self.stage16 = _stage(stride8, stride16, blocks[1])
        self.stage32 = _stage(stride16, stride32, blocks[2])
        self.merge16 = _Merge(stride32, stride16)
        self.merge8 = _Merge(stride16, stride8)
        self.channels = tuple(channels)
        self.merge4 = None
        if detail_channels is not None:
            self.narrow4 = nn.SequentialCell(_conv_norm_relu(stem4, detail_channels, kernel_size=1))
            self.merge4 = _Merge(stride8, detail_channels)
            self.channels = (detail_channels, *channels)

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        stride4 = self.stem(images)
        stride8 = self.stage8(stride4)
        stride16 = self.stage16(stride8)
        stride32 = self.stage32(stride16)
        stride16 = self.merge16(stride32, stride16)
        stride8 = self.merge8(stride16, stride8)
        if self.merge4 is None:
            return stride8, stride16, stride32
        return self.merge4(stride8, self.narrow4(stride4)), stride8, stride16, stride32


class _Block(nn.Cell):
    """Two 3×3 convolutions beside a shortcut (He et al. 2016), starting as the shortcut alone."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.SequentialCell(
            *_conv_norm_relu(in_channels, out_channels, stride),
            _conv(out_channels, out_channels, 3),
            nn.BatchNorm2d(out_channels, gamma_init="zeros"),
        )
        self.shortcut = nn.SequentialCell()
        if stride > 1:
            projection = _conv(in_channels, out_channels, 1, stride)
            self.shortcut = nn.SequentialCell(projection, nn.BatchNorm2d(out_channels))
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.relu(self.convs(x) + self.shortcut(x))


class _Merge(nn.Cell):
    """A map and the next coarser one → a map of the finer one's size and channels."""

    def __init__(self, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.Conv2dTranspose(
            coarse_channels, channels, 2, stride=2, pad_mode="valid", has_bias=False
        )
        self.conv = nn.SequentialCell(_conv_norm_relu(channels, channels))

    def construct(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.conv(cut(self.enlarge(coarse), fine) + fine)


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.SequentialCell:
    cells = [_Block(in_channels, out_channels, stride=2)]
    cells += [_Block(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
    return nn.SequentialCell(cells)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        pad_mode="pad",
        padding=kernel_size // 2,
        has_bias=False,
        weight_init="HeNormal",
    )


def _conv_norm_relu(
    in_channels: int, out_channels: int, stride: int = 1, kernel_size: int = 3
) -> list[nn.Cell]:
    return conv_norm_relu(_conv(in_channels, out_channels, kernel_size, stride), batch_norm=True)
