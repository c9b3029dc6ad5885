from collections.abc import Iterator

import mindspore as ms
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def pynative() -> Iterator[None]:
    """Eager mode and a fixed seed; tests of graph mode ask for `graph_mode`."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(1)
    np.random.seed(1)
    yield
    ms.set_context(mode=before)


@pytest.fixture
def graph_mode(pynative: None) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
