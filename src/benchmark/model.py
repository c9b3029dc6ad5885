"""Parameters, multiply-accumulates and memory traffic of a network."""

import math

from mindspore import Tensor, nn
from omegaconf import DictConfig

from src.benchmark.networks import parameter_count
from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.cli import build


def count(cfg: DictConfig) -> Work:
    """`parameters`, and the forward cost of the convolutions for an image of `height` × `width`.

    `macs` are multiply-accumulates, `bytes` the float32 maps that are read and written;
    `first_macs` and `first_bytes` those of layers on the image itself, which need no gradient of
    their input.
    """
    cfg.device.mode = "pynative"  # hooks are called in eager mode alone
    build.setup(cfg)
    network = build.bare_network(cfg)
    network.set_train(False)
    counted: list[tuple[int, int, int]] = []  # input channels, macs and bytes of each layer

    def add(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        # In a transposed convolution each value of the input meets the whole kernel
        values = x.size if isinstance(cell, nn.Conv2dTranspose) else output.size
        macs = values * math.prod(cell.weight.shape[1:])
        counted.append((x.shape[1], macs, 4 * (x.size + output.size)))

    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d | nn.Conv2dTranspose | nn.Dense):
            cell.register_forward_hook(add)
    images, _ = random_batch(cfg, count=1)
    network(Tensor(images))
    height, width = cfg.dataset.crop_size
    facts = {
        "parameters": parameter_count(network),
        "macs": sum(macs for _, macs, _ in counted),
        "first_macs": sum(macs for channels, macs, _ in counted if channels == 3),
        "bytes": sum(traffic for _, _, traffic in counted),
        "first_bytes": sum(traffic for channels, _, traffic in counted if channels == 3),
        "height": height,
        "width": width,
    }
    return Work(lambda: None, facts=facts)
