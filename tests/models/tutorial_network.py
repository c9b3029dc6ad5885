"""The tutorial's FCN-8s, at any width, to check that its checkpoints keep their function."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

CONVOLUTIONS = {"conv1": 2, "conv2": 2, "conv3": 3, "conv4": 3, "conv5": 3}


class TutorialFCN8s(nn.Cell):
    """As published: pools that drop odd rests, no bias anywhere, random upsampling."""

    def __init__(self, num_classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()

        def block(c_in: int, c_out: int, count: int = 1, kernel: int = 3) -> nn.SequentialCell:
            cells = []
            for i in range(count):
                cells += [nn.Conv2d(c_out if i else c_in, c_out, kernel), nn.BatchNorm2d(c_out)]
                cells += [nn.ReLU()]
            return nn.SequentialCell(cells)

        c_in = 3
        for (name, count), c_out in zip(CONVOLUTIONS.items(), channels[:5], strict=True):
            setattr(self, name, block(c_in, c_out, count))
            c_in = c_out
        self.conv6 = block(channels[4], channels[5], kernel=7)
        self.conv7 = block(channels[5], channels[5], kernel=1)
        self.pool = nn.MaxPool2d(2, 2)
        n = num_classes
        self.score_fr = nn.Conv2d(channels[5], n, 1)
        self.upscore2 = nn.Conv2dTranspose(n, n, 4, 2)
        self.score_pool4 = nn.Conv2d(channels[3], n, 1)
        self.upscore_pool4 = nn.Conv2dTranspose(n, n, 4, 2)
        self.score_pool3 = nn.Conv2d(channels[2], n, 1)
        self.upscore8 = nn.Conv2dTranspose(n, n, 16, 8)

    def construct(self, x: Tensor) -> Tensor:
        pool2 = self.pool(self.conv2(self.pool(self.conv1(x))))
        pool3 = self.pool(self.conv3(pool2))
        pool4 = self.pool(self.conv4(pool3))
        conv7 = self.conv7(self.conv6(self.pool(self.conv5(pool4))))
        fused = self.score_pool4(pool4) + self.upscore2(self.score_fr(conv7))
        return self.upscore8(self.score_pool3(pool3) + self.upscore_pool4(fused))


def randomise(network: nn.Cell) -> None:
    """Random values for all parameters, the statistics of batch normalisation too."""
    for name, parameter in network.parameters_dict().items():
        if name.endswith(("gamma", "moving_variance")):
            values = np.random.uniform(0.5, 2, parameter.shape)
        else:
            fan_in = max(1, np.prod(parameter.shape[1:]))
            values = np.random.normal(0, fan_in**-0.5, parameter.shape)
        parameter.set_data(Tensor(values, ms.float32))
