"""VGG as a backbone: its fully connected layers are convolutions, its class scores are gone."""

from mindspore import Tensor, nn
from mindspore.common.initializer import HeNormal

from src.models.layers import conv_norm_relu
from src.utils.errors import UserError

# Convolutions in each of the five blocks
_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Cell):
    """Five blocks of 3×3 convolutions (`conv1` to `conv5`), then fc6 (7×7) and fc7 (1×1).

    Names and shapes of the parameters are those of the tutorial's network. Weights start He-normal
    (fan in): without normalisation, too, the signal keeps its size through all layers, there a
    tenth of the image's.

    Args:
        depth: 11, 13, 16 or 19.
        batch_norm: Normalises after each convolution, which then has no bias; False is the original
            network, with biases.
        head_channels: Channels of conv6 and conv7.
        width: Factor on all channels, those of the head too.
        dropout: Share of values dropped after conv6 and conv7 in training.

    Raises:
        UserError: The depth is none of the four, or another value is out of range.
    """

    def __init__(
        self,
        depth: int = 16,
        batch_norm: bool = True,
        head_channels: int = 4096,
        width: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise UserError(f"depth={depth}: expected one of {', '.join(map(str, _BLOCKS))}")
        if not width > 0 or not head_channels > 0:
            raise UserError(
                f"width={width} head_channels={head_channels}: expected positive numbers"
            )
        if not 0 <= dropout < 1:
            raise UserError(f"dropout={dropout}: expected 0 to below 1")
        channels = [max(1, round(width * c)) for c in (*_CHANNELS, head_channels)]

        def convolution(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Cell]:
            cell = nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                pad_mode="same",
                has_bias=not batch_norm,
                weight_init=HeNormal(nonlinearity="relu"),
                bias_init="zeros",
            )
            return conv_norm_relu(cell, batch_norm)

        def block(index: int) -> nn.SequentialCell:
            cells: list[nn.Cell] = []
            in_channels = channels[index - 1] if index else 3
            for _ in range(_BLOCKS[depth][index]):
                cells += convolution(in_channels, channels[index], 3)
                in_channels = channels[index]
            return nn.SequentialCell(cells)

        def head(in_channels: int, kernel_size: int) -> nn.SequentialCell:
            cells = convolution(in_channels, channels[5], kernel_size)
            if dropout > 0:
                cells.append(nn.Dropout(p=dropout))
            return nn.SequentialCell(cells)

        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = map(block, range(5))
        self.conv6 = head(channels[4], kernel_size=7)
        self.conv7 = head(channels[5], kernel_size=1)
        if not batch_norm:
            # Adaptive optimizers move a layer's output in proportion to its input, whatever its
            # gradient: features as large as the image make the scores jump in the first steps
            first = self.conv1[0].weight
            first.set_data(first * 0.1)
        # Equal to "valid" for even sizes; odd ones keep their last row and column
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2, pad_mode="same")
        self.channels = (channels[2], channels[3], channels[5])

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pool1 = self.pool(self.conv1(images))
        pool2 = self.pool(self.conv2(pool1))
        pool3 = self.pool(self.conv3(pool2))  # 1/8
        pool4 = self.pool(self.conv4(pool3))  # 1/16
        pool5 = self.pool(self.conv5(pool4))
        return pool3, pool4, self.conv7(self.conv6(pool5))  # fc7: 1/32
