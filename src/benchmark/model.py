"""Parameters and multiply-accumulates of a network."""

import math

from mindspore import Tensor, nn
from omegaconf import DictConfig

from src.benchmark.networks import parameter_count
from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.cli import build


def count(cfg: DictConfig) -> Work:
    """`parameters`, and `macs` of one image of `height` × `width`: those of convolutions, forward.

    `first_macs` are those of the layers that see the image, which need no gradient of their input.
    """
    cfg.device.mode = "pynative"  # hooks are called in eager mode alone
    build.setup(cfg)
    network = build.bare_network(cfg)
    network.set_train(False)
    counted: list[tuple[int, int]] = []  # input channels and multiply-accumulates of each layer

    def add(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(cell, nn.Conv2dTranspose):  # each input value meets the whole kernel
            counted.append((inputs[0].shape[1], inputs[0].size * math.prod(cell.weight.shape[1:])))
        else:
            counted.append((inputs[0].shape[1], output.size * math.prod(cell.weight.shape[1:])))

    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d | nn.Conv2dTranspose | nn.Dense):
            cell.register_forward_hook(add)
    images, _ = random_batch(cfg, count=1)
    network(Tensor(images))
    height, width = cfg.dataset.crop_size
    facts = {
        "parameters": parameter_count(network),
        "macs": sum(macs for _, macs in counted),
        "first_macs": sum(macs for channels, macs in counted if channels == 3),
        "height": height,
        "width": width,
    }
    return Work(lambda: None, facts=facts)
