"""Dropout whose masks follow from seed, layer and draw, on the CPU and by Ascend's kernel."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.device.dropout import (
    AscendDropout,
    RepeatableDropout,
    draw_counters,
    make_dropout_repeatable,
)

SHAPE = (2, 8, 16, 16)


def ascend_kernel(x, p, training, inplace, seed, offset):
    """A double: like Ascend's it draws from a seed and an offset alone."""
    assert training and not inplace
    assert seed.dtype == offset.dtype == ms.int64
    rng = np.random.default_rng((int(seed.asnumpy()), int(offset.asnumpy())))
    return x * Tensor((rng.random(x.shape) >= p) / (1 - p), x.dtype)


@pytest.fixture(params=["CPU", "Ascend"])
def device(request, monkeypatch):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    monkeypatch.setattr(ms, "get_context", {"device_target": request.param}.get)
    monkeypatch.setattr(ms.ops.auto_generate, "func_dropout_ext_op", ascend_kernel)
    return request.param


def layers(seed=1):
    network = nn.SequentialCell(nn.Dropout(p=0.25), nn.Dropout(p=0.25)).set_train()
    make_dropout_repeatable(network, seed)
    return network


def test_on_ascend_one_kernel_draws_and_elsewhere_the_hash(device):
    kinds = {"CPU": RepeatableDropout, "Ascend": AscendDropout}
    assert {type(cell) for cell in layers()} == {kinds[device]}


def draws(network):
    return [
        cell(Tensor(np.ones(SHAPE, np.float32))).asnumpy() for cell in network for _ in range(2)
    ]


def test_a_share_p_is_dropped_and_the_rest_is_scaled_up(device):
    for drawn in draws(layers()):
        assert set(np.unique(drawn)) == {0, np.float32(1 / 0.75)}
        assert (drawn == 0).mean() == pytest.approx(0.25, abs=0.03)  # 4096 values: 4 deviations


def test_each_layer_and_each_draw_and_each_seed_has_a_mask_of_its_own(device):
    masks = [drawn.tobytes() for seed in (1, 2) for drawn in draws(layers(seed))]
    assert len(set(masks)) == 8


def test_the_counters_restore_what_is_drawn_next(device):
    network = layers()
    first = draws(network)
    state = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    assert state.keys() == draw_counters(network) == {"0.drawn", "1.drawn"}
    following = draws(network)
    resumed = layers()
    for parameter in resumed.get_parameters():
        parameter.set_data(Tensor(state[parameter.name]))
    assert np.array_equal(draws(resumed), following)
    assert not np.array_equal(first, following)


def test_nothing_is_dropped_in_inference(device):
    network = layers().set_train(False)
    assert all((drawn == 1).all() for drawn in draws(network))
