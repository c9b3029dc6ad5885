"""A fit with data sinking, by MindSpore's own loop; a double stands for the device and its queue."""

import csv
import logging

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn

from src.data.loader import EpochSampler
from src.engine.callbacks.base import Callback
from src.engine.callbacks.monitors import MetricLogger
from src.engine.callbacks.progress import ProgressBar
from src.engine.loggers.csv import CsvLogger
from src.engine.sinking import sink_size
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.utils.errors import UserError

STEPS, EPOCHS = 12, 2


@pytest.mark.parametrize(
    ("steps", "at_most", "size"),
    [(366, 10, 6), (2645, 10, 5), (40, 10, 10), (41, 10, 41), (49, 10, 7), (12, 1, 2), (1, 10, 1)],
)
def test_a_sink_is_the_largest_divisor_of_an_epoch_up_to_the_logging_interval(steps, at_most, size):
    assert sink_size(steps, at_most) == size


class Queue:
    """The device's: each call of `network` makes as many steps as a sink has."""

    made = []

    def __init__(self, dataset, sink_mode, size, epochs):
        assert sink_mode
        if dataset.get_init_step() % size:
            raise AssertionError("MindSpore would go back to the last multiple")
        self.dataset, self.size, self.closed = dataset, size, []
        dataset.__transfer_dataset__ = self
        self.rows = self._rows()
        Queue.made.append(self)

    def _rows(self):
        rows = self.dataset.create_tuple_iterator(num_epochs=EPOCHS)
        for _ in range(EPOCHS):
            yield from rows

    def __iter__(self):
        return iter([()])

    def sink_size(self):
        return self.size

    def continue_send(self):
        pass

    def stop_send(self):
        self.closed.append("stop_send")

    def release(self):
        self.closed.append("release")


class Connected:
    def __init__(self, network, queue):
        self.network, self.queue = network, queue

    def set_train(self, mode):
        self.network.set_train(mode)

    def __call__(self):
        for _ in range(self.queue.size):
            loss = self.network(*next(self.queue.rows))
        return loss


def become_accelerator(monkeypatch):
    """`ms.get_context` says Ascend, and `Model.train` sinks, as it does there."""
    context, model = ms.get_context, ms.train.model
    monkeypatch.setattr(
        ms, "get_context", lambda key: "Ascend" if key == "device_target" else context(key)
    )
    monkeypatch.setattr(model, "DatasetHelper", Queue)
    monkeypatch.setattr(model, "connect_network_with_dataset", Connected)

    def sink(self, epoch, data, callbacks, params, initial_epoch, valid):
        size = params.batch_num
        return self._train_dataset_sink_process(
            epoch, data, callbacks, params, size, initial_epoch, valid
        )

    monkeypatch.setattr(ms.train.Model, "_train_process", sink)
    Queue.made.clear()


@pytest.fixture
def accelerator(monkeypatch):
    become_accelerator(monkeypatch)


class Spy(Callback):
    """Writes down what it is called with."""

    def __init__(self, act=lambda event, step: None):
        super().__init__()
        self.events, self.act = [], act

    def _seen(self, event, run_context):
        params = run_context.original_args()
        self.events.append((event, params.cur_epoch_num, params.cur_step_num, params.batch_num))
        self.act(event, params.cur_step_num)

    def on_train_epoch_begin(self, run_context):
        self._seen("epoch begins", run_context)

    def on_train_step_end(self, run_context):
        self._seen("step ends", run_context)

    def on_train_epoch_end(self, run_context):
        self._seen("epoch ends", run_context)


class Pairs:
    def __len__(self):
        return STEPS * 2

    def __getitem__(self, key):
        image = np.random.default_rng(int(key)).normal(size=(3, 4, 4)).astype(np.float32)
        return image, (image[0] > image[1]).astype(np.int32)


def fit(path, callbacks=(), resume=False, **options):
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(2)
    network = nn.Conv2d(3, 2, 1, has_bias=True, weight_init="zeros")
    sampler = EpochSampler(STEPS * 2, seed=1)
    data = ds.GeneratorDataset(
        Pairs(), ["images", "labels"], sampler=sampler, python_multiprocessing=False
    )
    trainer = Trainer(
        path, [*callbacks, MetricLogger()], [CsvLogger(path)], sink_mode=True,
        **{"max_epochs": EPOCHS, "log_every_n_steps": 5} | options,
    )  # fmt: skip
    trainer.fit(
        network,
        CrossEntropy(),
        nn.SGD(network.trainable_params(), 0.5),
        data.batch(2),
        resume=resume,
    )
    return trainer, network


def table(path):
    with open(path / "metrics.csv", newline="") as file:
        return [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_sinks_train_as_steps_do_and_log_means_over_all_steps(tmp_path, accelerator, monkeypatch):
    _, sunk = fit(tmp_path / "sunk")
    losses = []

    class Losses(ms.train.Callback):
        def on_train_step_end(self, run_context):
            losses.append(float(run_context.original_args().net_outputs.asnumpy()))

    monkeypatch.undo()
    _, stepped = fit(tmp_path / "stepped", [Losses()])
    assert np.allclose(sunk.weight.asnumpy(), stepped.weight.asnumpy(), atol=1e-6)
    # Sinks of 4: the first one at or behind each multiple of 5, and the epoch's last
    spans = {8: (0, 8), 12: (8, 12), 16: (12, 16), 20: (16, 20), 24: (20, 24)}
    assert [step for step, _ in table(tmp_path / "sunk")] == list(spans)
    for step, loss in table(tmp_path / "sunk"):
        assert loss == pytest.approx(np.mean(losses[slice(*spans[step])]), rel=1e-5)


@pytest.mark.slow
def test_callbacks_are_told_of_epochs_where_mindspore_sees_sinks(tmp_path, accelerator):
    spy = Spy()
    fit(tmp_path, [spy])
    epoch = lambda number, first: [  # noqa: E731
        ("epoch begins", number, first, STEPS),
        *[("step ends", number, first + made, STEPS) for made in (4, 8, 12)],
        ("epoch ends", number, first + STEPS, STEPS),
    ]
    assert spy.events == [*epoch(1, 0), *epoch(2, STEPS)]


@pytest.mark.slow
def test_a_fit_that_was_cut_off_between_two_sinks_goes_on_there(tmp_path, accelerator):
    def interrupt(event, step):
        if step == 20:
            raise KeyboardInterrupt

    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", [Spy(interrupt)], save_every_n_steps=5)
    assert Queue.made[-1].closed == ["stop_send", "release"]
    fit(tmp_path / "cut", resume=True)
    assert Queue.made[-1].dataset.get_init_step() == 16  # the first sink behind step 15
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


@pytest.mark.slow
def test_a_state_of_amid_a_sink_is_refused(tmp_path, monkeypatch):
    def interrupt(event, step):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, [Spy(interrupt)], save_every_n_steps=6)
    become_accelerator(monkeypatch)
    with pytest.raises(UserError, match="state is of step 6.*multiples of 4 .*sink_mode=false"):
        fit(tmp_path, resume=True)


@pytest.mark.slow
def test_the_estimate_leaves_compilation_and_validation_out(
    tmp_path, accelerator, monkeypatch, caplog
):
    from src.engine.callbacks import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    caplog.set_level(logging.INFO)

    def take(event, step):  # a sink is an epoch: 50 s with compilation, then 24; 100 s a validation
        now[0] += {"step ends": 50 if step == STEPS else 24, "epoch ends": 100}.get(event, 0)

    fit(tmp_path, [Spy(take), ProgressBar(slow_epoch_seconds=1e9)], log_every_n_steps=STEPS)
    assert "first 12 steps done after 50 s" in caplog.text
    assert "12 steps of 2.00 s" in caplog.text
