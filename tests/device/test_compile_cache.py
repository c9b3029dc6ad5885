"""Compiled graphs that are kept, identified by all that they are compiled from."""

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal

from src.device.compile_cache import KEPT, fingerprint

X = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))


class Net(nn.Cell):
    """x → factor · x · weight + constant."""

    def __init__(self, factor=2.0, constant=(1.0, 1.0, 1.0), size=3, function=None):
        super().__init__()
        self.factor = factor
        self.constant = Tensor(np.array(constant, np.float32))
        self.weight = ms.Parameter(Tensor(np.ones(size, np.float32)), name="weight")
        self.function = function or ops.identity

    def construct(self, x):
        return self.function(x * self.factor * self.weight + self.constant)


def adding(number):
    return lambda x: x + number


@pytest.fixture
def graphs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MS_COMPILER_CACHE_ENABLE", raising=False)
    return tmp_path / "fcn-mindspore" / "graphs"


def test_equal_cells_have_one_fingerprint_whatever_their_weights_are():
    other = Net()
    other.weight.set_data(X[1])
    assert fingerprint(Net(), X) == fingerprint(other, X) == fingerprint(Net(), X + 1)


@pytest.mark.parametrize(
    "other",
    [
        Net(factor=3.0),
        Net(constant=(1.0, 1.0, 2.0)),
        Net(function=ops.relu),
        Net(function=adding(1)),
        nn.SequentialCell(Net()),
        Net().set_train(),
    ],
    ids=["attribute", "constant", "operator", "function", "structure", "training"],
)
def test_whatever_is_compiled_in_changes_the_fingerprint(other):
    assert fingerprint(other, X) != fingerprint(Net(), X)


def test_an_initialiser_is_not_told_apart_by_its_address():
    """MindSpore's layers keep the text of their arguments, `<HeNormal object at 0x…>` among them."""
    one, other = (nn.Conv2d(3, 4, 3, weight_init=HeNormal()) for _ in range(2))
    assert fingerprint(one, X) == fingerprint(other, X)


def test_functions_are_told_apart_by_what_they_enclose():
    assert fingerprint(Net(function=adding(1)), X) != fingerprint(Net(function=adding(2)), X)
    assert fingerprint(Net(function=adding(1)), X) == fingerprint(Net(function=adding(1)), X)


def test_shapes_types_and_settings_change_the_fingerprint(monkeypatch):
    before = fingerprint(Net(), X)
    assert fingerprint(Net(), X[:1]) != before
    assert fingerprint(Net(), X.astype(ms.float16)) != before
    assert fingerprint(Net(size=1), X) != before
    frozen = Net()
    frozen.weight.requires_grad = False
    assert fingerprint(frozen, X) != before
    monkeypatch.setenv("MS_DEV_ANY", "1")
    assert fingerprint(Net(), X) != before


def test_an_edited_source_file_changes_the_fingerprint(tmp_path, monkeypatch):
    module = tmp_path / "edited_module.py"
    module.write_text("NUMBER = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import edited_module

    before = fingerprint(Net(), X)
    Path(edited_module.__file__).write_text("NUMBER = 2\n")
    assert fingerprint(Net(), X) != before
    edited_module.__file__ = "of_no_file.py"  # as torch has one
    fingerprint(Net(), X)
    del sys.modules["edited_module"]


PROGRAM = """
import sys
from src.device import runtime
runtime.limit_onednn_isa()
import hashlib, logging
import mindspore as ms, numpy as np
from mindspore import Tensor, nn
from src.engine.train_step import TrainStep
from src.losses import CrossEntropy
from src.optim.optimizers import AdamW, parameter_groups
from src.optim.schedules import cosine

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
runtime.setup_device("CPU")
for rate in map(float, sys.argv[2:]):
    runtime.seed_everything(1)
    network = nn.SequentialCell(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, group=16), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 3, 1),
    )
    schedule = cosine(rate, 10)
    optimizer = AdamW(parameter_groups(network.trainable_params(), schedule, 0.01), schedule)
    cached = sys.argv[1] == "cached"
    step = TrainStep(network, CrossEntropy(), optimizer, cache_graph=cached).set_train()
    rng = np.random.default_rng(0)
    images = Tensor(rng.normal(size=(2, 3, 16, 16)).astype(np.float32))
    labels = Tensor(rng.integers(0, 3, (2, 16, 16)).astype(np.int32))
    for _ in range(3):
        step(images, labels)
    weights = b"".join(parameter.asnumpy().tobytes() for parameter in network.get_parameters())
    print("weights", hashlib.sha256(weights).hexdigest())
"""


@pytest.fixture
def train(graphs, tmp_path):
    """Trains for three steps in a process of its own: whether a kept graph served, the weights."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        done = subprocess.run(
            [sys.executable, program, *map(str, arguments)],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        weights = [line for line in done.stdout.splitlines() if line.startswith("weights")]
        return "earlier run" in done.stdout, weights

    return run


@pytest.mark.slow
def test_training_by_a_kept_graph_is_the_same_to_the_bit(graphs, train):
    served, expected = train("uncached", 0.01, 0.02)
    assert not served and not graphs.exists() and expected[0] != expected[1]
    assert train("cached", 0.01, 0.02) == (False, expected)
    (kept,) = graphs.iterdir()  # of the process's first network alone
    assert train("cached", 0.01, 0.02) == (True, expected)
    assert list(graphs.iterdir()) == [kept]
    # Another rate: another graph, though all source files are the same
    assert train("cached", 0.02) == (False, expected[1:])
    assert len(list(graphs.iterdir())) == 2


@pytest.mark.slow
def test_a_damaged_graph_is_compiled_anew_and_the_oldest_goes(graphs, train):
    for i in range(KEPT):
        (graphs / f"{i:02}").mkdir(parents=True)
        os.utime(graphs / f"{i:02}", (1000 + i, 1000 + i))
    os.utime(graphs / "00", (5000, 5000))  # used again
    _, expected = train("cached", 0.01)
    names = {path.name for path in graphs.iterdir()}
    assert len(names) == KEPT and "00" in names and "01" not in names
    (file,) = graphs.rglob("*.mindir")
    size = file.stat().st_size
    file.chmod(0o600)
    os.truncate(file, size // 2)
    assert train("cached", 0.01)[1] == expected
    assert file.stat().st_size == size


@pytest.mark.slow
def test_without_a_folder_to_write_to_nothing_is_kept(tmp_path, monkeypatch, train):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    served, weights = train("cached", 0.01)
    assert not served and len(weights) == 1
