"""A fit that was cut off and resumed is the uninterrupted one, bit for bit."""

import csv
import os
import signal
from dataclasses import replace

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn

from src.data.loader import EpochSampler
from src.engine.callbacks.base import Callback
from src.engine.callbacks.monitors import MetricLogger
from src.engine.callbacks.progress import ProgressBar
from src.engine.callbacks.validation import (
    BestCheckpoint,
    EarlyStopping,
    TopKCheckpoints,
    Validate,
)
from src.engine.evaluator import Evaluation, Evaluator, ImageScores
from src.engine.loggers.csv import CsvLogger
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.utils.errors import UserError

pytestmark = pytest.mark.slow

SIZE, STEPS, EPOCHS = 10, 4, 3  # samples, steps an epoch (of 2 images: two are left over), epochs
SCALER = lambda: ms.amp.DynamicLossScaler(1024, 2, 3)  # noqa: E731


class Pairs:
    """Noise with labels; the key tells the epoch, too, and so differs each time."""

    def __len__(self):
        return SIZE

    def __getitem__(self, key):
        rng = np.random.default_rng(int(key))
        image = rng.normal(size=(3, 8, 8)).astype(np.float32)
        return image, (image[0] > image[1]).astype(np.int32)


class Scores(Evaluator):
    """An evaluator whose mIoU hangs on the weights, and which may be disturbed."""

    def __init__(self, network, disturb=lambda: None):
        super().__init__(None, [0, 1], None, (), "val")
        self.network, self.disturb = network, disturb

    def names(self):
        return ["miou"]

    def run(self, count, on_sample):
        self.disturb()
        on_sample()
        value = float(np.abs(np.sin(self.network[0].weight.asnumpy().sum() * 100)))
        matrix = np.array([[int(value * 100), 1], [2, 3]], np.int64)
        return Evaluation({"miou": value}, {}, matrix, {}, (ImageScores("a", value, float("nan")),))


class At(Callback):
    """Does something at the end of a step."""

    def __init__(self, step, action):
        self.at, self.action = step, action

    def on_train_step_end(self, run_context):
        if self.trainer.state.step == self.at:
            self.action()


class Killed(Exception):
    pass


def kill():
    raise Killed


def fit(
    path,
    *,
    extra=(),
    disturb=lambda: None,
    resume=False,
    patience=9,
    epochs=EPOCHS,
    size=2,
    **options,
):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(3)
    network = nn.SequentialCell(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(p=0.4), nn.Conv2d(4, 2, 1)
    )
    optimizer = nn.Momentum(network.trainable_params(), nn.CosineDecayLR(1e-3, 0.5, 12), 0.9)
    data = ds.GeneratorDataset(
        Pairs(),
        ["images", "labels"],
        sampler=EpochSampler(SIZE, seed=1),
        python_multiprocessing=False,
    ).batch(size, drop_remainder=True)
    callbacks = [
        *extra, MetricLogger(), Validate(), BestCheckpoint(), TopKCheckpoints(),
        EarlyStopping(patience), ProgressBar(),
    ]  # fmt: skip
    defaults = {"limit_train_batches": STEPS, "keep_top_k": 2, "log_every_n_steps": 3}
    trainer = Trainer(
        path, callbacks, [CsvLogger(path)], max_epochs=epochs, **{"loss_scaler": SCALER} | defaults | options,
    )  # fmt: skip
    evaluator = Scores(network, disturb)
    state = trainer.fit(network, CrossEntropy(), optimizer, data, evaluator, resume=resume)
    return trainer, state


def outcome(path):
    """Everything a run leaves that must not depend on how often it was cut off."""
    with open(path / "metrics.csv", newline="") as file:
        table = [
            {key: value for key, value in row.items() if key != "train/images_per_second"}
            for row in csv.DictReader(file)
        ]
    checkpoints = {p.name: p.read_bytes() for p in (path / "checkpoints").glob("*.ckpt")}
    state = np.load(path / "checkpoints" / "last_state.npz")
    arrays = {name: state[name].tobytes() for name in state.files if name != "progress.json"}
    return table, checkpoints, arrays, (path / "eval.json").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    _, state = fit(path)
    return outcome(path), state


@pytest.mark.parametrize(("step", "every"), [(6, None), (8, 2), (11, 2)])
def test_a_killed_fit_resumes_to_the_very_same_bits(tmp_path, whole, step, every):
    with pytest.raises(Killed):
        fit(tmp_path, extra=[At(step, kill)], save_every_n_steps=every)
    _, state = fit(tmp_path, resume=True, save_every_n_steps=every)
    assert outcome(tmp_path) == whole[0]
    assert (state.best, state.step, state.epochs_ended) == (whole[1].best, STEPS * EPOCHS, EPOCHS)
    expected = whole[1].best_evaluation
    assert np.array_equal(state.best_evaluation.matrix, expected.matrix)
    assert repr(replace(state.best_evaluation, matrix=None)) == repr(replace(expected, matrix=None))


def test_a_fit_killed_again_and_again_resumes_to_the_very_same_bits(tmp_path, whole):
    for turn, step in enumerate((3, 5, 9, 9)):
        with pytest.raises(Killed):
            fit(tmp_path, extra=[At(step, kill)], resume=turn > 0, save_every_n_steps=1)
    fit(tmp_path, resume=True)
    assert outcome(tmp_path) == whole[0]


# Within an epoch, at the end of one, at the end of all
@pytest.mark.parametrize(
    ("step", "number"), [(3, signal.SIGINT), (8, signal.SIGTERM), (12, signal.SIGINT)]
)
def test_a_signal_saves_the_step_that_was_made(tmp_path, whole, step, number):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, extra=[At(step, lambda: os.kill(os.getpid(), number))])
    assert int(np.load(tmp_path / "checkpoints" / "last_state.npz")["global_step"]) == step
    fit(tmp_path, resume=True)
    assert outcome(tmp_path) == whole[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_average_of_the_weights_goes_on_too(tmp_path):
    options = {"ema_decay": 0.9, "monitor": "val/ema/miou"}
    _, state = fit(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        fit(tmp_path / "cut", extra=[At(7, kill)], save_every_n_steps=2, **options)
    _, resumed = fit(tmp_path / "cut", resume=True, **options)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert resumed.best == state.best and state.best["val/ema/miou"] != state.best["val/miou"]


@pytest.mark.parametrize("epoch", [2, EPOCHS])
def test_a_signal_during_validation_leaves_the_validation_to_the_resumed_fit(
    tmp_path, whole, epoch
):
    calls = []

    def disturb():
        calls.append(True)
        if len(calls) == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, disturb=disturb)
    fit(tmp_path, resume=True)
    assert outcome(tmp_path) == whole[0]


def test_a_second_signal_is_obeyed_at_once_and_saves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, extra=[At(3, lambda: os.kill(os.getpid(), signal.SIGINT))] * 2)
    assert not (tmp_path / "checkpoints").exists()


def test_early_stopping_goes_on_counting(tmp_path):
    options = {"monitor_mode": "min", "patience": 1, "epochs": 6, "limit_train_batches": 1}
    _, expected = fit(tmp_path / "whole", **options)
    stopped = expected.epoch
    assert 2 < stopped < 6
    with pytest.raises(Killed):
        fit(tmp_path / "cut", extra=[At(stopped - 1, kill)], **options)
    for _ in range(2):  # the second time, nothing is left to do
        _, state = fit(tmp_path / "cut", resume=True, **options)
        assert (state.step, state.stop_reason) == (stopped, expected.stop_reason)
    _, state = fit(tmp_path / "cut", resume=True, **options | {"patience": 9})
    assert (state.step, state.stop_reason) == (6, None)


def test_a_finished_fit_has_nothing_left_and_more_epochs_extend_it(tmp_path, whole):
    fit(tmp_path, epochs=2)
    before = outcome(tmp_path)
    fit(tmp_path, epochs=2, resume=True)
    assert outcome(tmp_path) == before
    fit(tmp_path, resume=True)
    assert outcome(tmp_path) == whole[0]


def test_without_a_saved_state_the_run_starts_from_its_beginning(tmp_path, whole):
    with pytest.raises(Killed):
        fit(tmp_path, extra=[At(4, kill)])
    assert not (tmp_path / "checkpoints").exists()
    fit(tmp_path, resume=True)
    assert outcome(tmp_path) == whole[0]


def test_epochs_of_another_length_are_refused(tmp_path):
    fit(tmp_path, epochs=1)
    with pytest.raises(UserError, match="4 steps of 2 images an epoch.*2 of 4"):
        fit(tmp_path, resume=True, size=4)
