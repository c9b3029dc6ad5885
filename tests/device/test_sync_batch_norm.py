"""Synchronised batch normalisation, as far as one process on a CPU can tell."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.device.precision import set_precision
from src.device.sync_batch_norm import synchronize_batch_norm
from src.models.backbones.mindcv import MindCVBackbone


class Block(nn.Cell):
    def __init__(self):
        super().__init__()
        self.body = nn.SequentialCell(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=0.8))
        self.norm = nn.BatchNorm2d(2, eps=1e-3)

    def construct(self, x):
        return self.norm(self.body(x))


def test_norms_are_replaced_and_keep_their_parameters_names_and_constants():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = Block().set_train()
    images = Tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32))
    names = [p.name for p in network.get_parameters()]
    before = network(images).asnumpy()
    ids = {name: id(p) for name, p in network.parameters_and_names()}

    synchronize_batch_norm(network)

    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.SyncBatchNorm)]
    assert [(norm.num_features, norm.eps) for norm in norms] == [(2, 1e-5), (2, 1e-3)]
    assert np.isclose(1 - norms[0].momentum, 0.8) and all(norm.training for norm in norms)
    assert sorted(p.name for p in network.get_parameters()) == sorted(names)
    assert {name: id(p) for name, p in network.parameters_and_names()} == ids
    assert np.array_equal(network(images).asnumpy(), before)


@pytest.mark.parametrize("level", ["O2", "O3", "auto"])
def test_half_precision_leaves_them_in_single_precision(level):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = Block().set_train(False)
    synchronize_batch_norm(network)
    set_precision(network, level)
    types = {}
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.SyncBatchNorm):
            # A cell that computes in half precision casts its statistics, and updates the copies
            assert not cell.get_flags().get("fp16") and cell.get_flags().get("fp32")
            types[name] = cell(Tensor(np.ones((1, 2, 3, 3)), ms.float16)).dtype
    assert types == {"body.1": ms.float32, "norm": ms.float32}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small_100", "hrnet_w32"])
def test_parameters_of_mindcvs_models_keep_their_names_too(name):
    backbone = MindCVBackbone(name)
    before = [(p.name, id(p)) for p in backbone.get_parameters()]
    synchronize_batch_norm(backbone)
    kinds = {type(cell) for _, cell in backbone.cells_and_names()}
    assert nn.SyncBatchNorm in kinds and nn.BatchNorm2d not in kinds
    assert sorted((p.name, id(p)) for p in backbone.get_parameters()) == sorted(before)
