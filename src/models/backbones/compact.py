"""A small strided backbone, for demonstrations and tests on the CPU."""

from collections.abc import Sequence

from mindspore import Tensor, nn

from src.models.layers import conv_norm_relu
from src.utils.errors import UserError


class Compact(nn.Cell):
    """Eleven 3×3 convolutions with batch norm; a strided one opens each of the five stages.

    The first convolution halves the image already: on a CPU a training step takes about a third
    of `vgg_slim`'s. There are no pretrained weights for it.

    Args:
        channels: Of the five stages, at strides 2, 4, 8, 16 and 32.
    """

    def __init__(self, channels: Sequence[int] = (24, 48, 96, 128, 192)) -> None:
        super().__init__()
        if len(channels) != 5:
            raise UserError(
                f"model.backbone.channels={list(channels)}: expected five numbers, one a stage"
            )
        inputs = (3, *channels)
        depths = (1, 2, 3, 3, 2)  # convolutions of the stages
        stages = [_stage(i, o, n) for i, o, n in zip(inputs, channels, depths, strict=False)]
        self.stride8 = nn.SequentialCell(stages[0] + stages[1] + stages[2])
        self.stride16 = nn.SequentialCell(stages[3])
        self.stride32 = nn.SequentialCell(stages[4])
        self.channels = tuple(channels[2:])

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride8 = self.stride8(images)
        stride16 = self.stride16(stride8)
        return stride8, stride16, self.stride32(stride16)


def _stage(in_channels: int, out_channels: int, depth: int) -> list[nn.Cell]:
    cells: list[nn.Cell] = []
    for i in range(depth):
        convolution = nn.Conv2d(
            in_channels if i == 0 else out_channels,
            out_channels,
            3,
            stride=2 if i == 0 else 1,
            pad_mode="pad",
            padding=1,
            has_bias=False,
            weight_init="HeNormal",
        )
        cells += conv_norm_relu(convolution, batch_norm=True)
    return cells
