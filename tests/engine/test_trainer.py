"""The trainer and its callbacks on a toy problem, through `mindspore.train.Model`."""

import csv
import io
import json
import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn
from rich.console import Console

from src.device.process_group import ProcessGroup
from src.engine.callbacks.base import Callback
from src.engine.callbacks.monitors import MetricLogger, NonFiniteGuard
from src.engine.callbacks.progress import ProgressBar
from src.engine.callbacks.validation import (
    BestCheckpoint,
    EarlyStopping,
    TopKCheckpoints,
    Validate,
)
from src.engine.evaluator import Evaluator
from src.engine.loggers.base import Logger
from src.engine.loggers.csv import CsvLogger
from src.engine.segmenter import Segmenter
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.metrics import ConfusionMatrix
from src.utils.errors import UserError
from src.utils.normalization import Normalization

pytestmark = pytest.mark.slow

PLAIN = Normalization("rgb", (128, 128, 128), (64, 64, 64))


@dataclass
class Sample:
    name: str
    image: np.ndarray
    label: np.ndarray


def samples(count=3):
    """Images whose class is whether green is above red: linear in the pixel."""
    made = []
    for i in range(count):
        image = np.random.default_rng(i).integers(0, 256, (32 + i, 40, 3), np.uint8)
        made.append(Sample(str(i), image, (image[..., 1] > image[..., 0]).astype(np.uint8)))
    return made


def batches(size=2, count=8):
    pairs = [
        (PLAIN.apply(s.image[:32, :32]), s.label[:32, :32].astype(np.int32)) for s in samples(count)
    ]
    return ds.GeneratorDataset(pairs, ["images", "labels"], shuffle=False).batch(size)


class Scripted(Evaluator):
    """Gives mIoU values from a list."""

    def __init__(self, values):
        super().__init__(None, samples(1), None, (), "val")
        self.values = iter(values)

    def names(self):
        return ["miou"]

    def run(self, count, on_sample=lambda: None):
        from src.engine.evaluator import Evaluation

        return Evaluation({"miou": next(self.values)}, {}, np.zeros((2, 2)), {})


def fit(tmp_path, callbacks, evaluator=None, rates=(), data=None, loggers=(), **options):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(1)
    network = nn.Conv2d(3, 2, 1, pad_mode="valid", has_bias=True)
    optimizer = nn.Momentum(network.trainable_params(), 1.0, 0.9)
    trainer = Trainer(tmp_path, callbacks, loggers, **{"max_epochs": 3, **options})
    state = trainer.fit(
        network,
        CrossEntropy(),
        optimizer,
        data or batches(),
        evaluator,
        lambda step: rates[step] if rates else 1.0,
    )
    return trainer, network, state


def real_evaluator(network):
    return Evaluator(
        Segmenter(network, PLAIN), samples(), ConfusionMatrix(2), ("less", "more"), "val"
    )


def rows(tmp_path):
    with open(tmp_path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_learnable_problem_is_learned_and_the_best_weights_reproduce_their_score(tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = nn.Conv2d(3, 2, 1, pad_mode="valid", has_bias=True)
    evaluator = real_evaluator(network)
    callbacks = [MetricLogger(), Validate(), BestCheckpoint(), ProgressBar()]
    trainer = Trainer(
        tmp_path, callbacks, [CsvLogger(tmp_path)], max_epochs=10, log_every_n_steps=2
    )
    optimizer = nn.Momentum(network.trainable_params(), 1.0, 0.9)
    state = trainer.fit(network, CrossEntropy(), optimizer, batches(), evaluator)
    assert state.best["val/miou"] > 0.9
    assert state.epoch == 10 and state.step == 40
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written["miou"] == state.best["val/miou"]
    assert written["protocol"]["images"] == 3
    ms.load_checkpoint(str(tmp_path / "checkpoints" / "best.ckpt"), network)
    again = trainer.evaluate(evaluator)
    assert again.scores["miou"] == state.best["val/miou"]


def test_the_csv_holds_mean_loss_rate_and_speed_by_step_and_scores_by_epoch(tmp_path):
    seen = []

    class Spy(Callback):
        def on_train_step_end(self, run_context):
            seen.append(self.trainer.state.loss)

    fit(
        tmp_path,
        [Spy(), MetricLogger(), Validate()],
        Scripted([0.1, 0.2, 0.3]),
        loggers=[CsvLogger(tmp_path)],
        log_every_n_steps=3,
    )
    table = rows(tmp_path)
    train = [row for row in table if row["train/loss"]]
    assert [int(row["step"]) for row in train] == [3, 4, 6, 8, 9, 12]  # every third, and epoch ends
    assert float(train[0]["train/loss"]) == pytest.approx(np.mean(seen[:3]))
    assert float(train[1]["train/loss"]) == pytest.approx(seen[3])
    assert all(float(row["lr"]) == 1.0 for row in train)
    assert all(float(row["train/images_per_second"]) > 0 for row in train)
    assert [row["val/miou"] for row in table if row["val/miou"]] == ["0.1", "0.2", "0.3"]


def test_the_best_survives_nan_zero_and_worse_values(tmp_path):
    values = [0.0, float("nan"), 0.4, 0.3]
    _, _, state = fit(tmp_path, [Validate(), BestCheckpoint()], Scripted(values), max_epochs=4)
    assert state.best == {"epoch": 3, "step": 12, "val/miou": 0.4}


def test_a_monitored_value_can_be_one_to_minimise(tmp_path):
    _, _, state = fit(
        tmp_path, [Validate(), BestCheckpoint()], Scripted([0.3, 0.0, 0.4]), monitor_mode="min"
    )
    assert state.best["epoch"] == 2


def test_validation_runs_every_nth_epoch_and_after_the_last(tmp_path):
    evaluator = Scripted([0.1, 0.2, 0.3])
    fit(
        tmp_path,
        [Validate(), MetricLogger()],
        evaluator,
        max_epochs=5,
        val_every_n_epochs=2,
        loggers=[CsvLogger(tmp_path)],
    )
    assert [int(row["epoch"]) for row in rows(tmp_path) if row["val/miou"]] == [2, 4, 5]


def test_the_k_best_checkpoints_are_kept(tmp_path):
    fit(
        tmp_path,
        [Validate(), TopKCheckpoints()],
        Scripted([math.nan, 0.3, 0.1, 0.5, 0.2, 0.4]),
        max_epochs=6,
        keep_top_k=2,
        save_last=False,
    )
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["epoch_004.ckpt", "epoch_006.ckpt"]


def test_early_stopping_waits_for_patience_and_counts_from_the_best(tmp_path):
    values = [0.1, 0.3, 0.2, 0.31, 0.305, 0.2, 0.9]
    _, _, state = fit(
        tmp_path, [Validate(), EarlyStopping(patience=2)], Scripted(values), max_epochs=7
    )
    assert state.epoch == 6
    assert "val/miou" in state.stop_reason


def test_gains_below_min_delta_do_not_count(tmp_path):
    _, _, state = fit(
        tmp_path,
        [Validate(), EarlyStopping(patience=2, min_delta=0.05)],
        Scripted([0.1, 0.12, 0.14, 0.9]),
        max_epochs=4,
    )
    assert state.epoch == 3


def test_a_non_finite_loss_stops_the_run_and_names_the_step(tmp_path):
    pairs = [(np.ones((3, 8, 8), np.float32), np.zeros((8, 8), np.int32)) for _ in range(6)]
    pairs[3] = (np.full((3, 8, 8), np.inf, np.float32), pairs[3][1])
    data = ds.GeneratorDataset(pairs, ["images", "labels"], shuffle=False).batch(1)
    with pytest.raises(UserError, match=r"train/loss=nan at step 4 \(epoch 1\)"):
        fit(tmp_path, [NonFiniteGuard()], data=data)


def test_an_unknown_monitor_is_named_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean 'val/miou'"):
        fit(tmp_path, [Validate()], Scripted([]), monitor="val/mIoU")  # before any validation


def test_limits_cut_epochs_and_validation(tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = nn.Conv2d(3, 2, 1, pad_mode="valid")
    trainer, _, state = fit(
        tmp_path,
        [Validate()],
        real_evaluator(network),
        limit_train_batches=2,
        limit_val_batches=1,
        max_epochs=2,
    )
    assert state.step == 4
    assert state.evaluation.protocol["images"] == 1
    _, _, state = fit(tmp_path, [Validate()], Scripted([]), limit_val_batches=0)
    assert state.metrics == {}


def test_a_stock_mindspore_callback_sees_the_scores_and_works_beside_ours(tmp_path):
    stock = ms.train.EarlyStopping(monitor="val/miou", patience=1, mode="max")
    seen = []

    class Spy(ms.train.Callback):
        def on_train_epoch_end(self, run_context):
            seen.append(run_context.original_args().eval_results["val/miou"])

    _, _, state = fit(
        tmp_path, [Validate(), stock, Spy()], Scripted([0.5, 0.4, 0.3, 0.2]), max_epochs=4
    )
    assert seen[:2] == [0.5, 0.4]
    assert state.epoch == 2


def test_last_holds_weights_and_the_optimizers_state(tmp_path):
    _, network, _ = fit(tmp_path, [], save_every_n_steps=3)
    weights = ms.load_checkpoint(str(tmp_path / "checkpoints" / "last.ckpt"))
    assert np.array_equal(weights["weight"].asnumpy(), network.weight.asnumpy())
    state = np.load(tmp_path / "checkpoints" / "last_state.npz")
    assert int(state["global_step"]) == 12
    assert any(name.startswith("moments") for name in state)


def test_callbacks_are_closed_also_after_an_error(tmp_path):
    closed = []

    class Broken(Callback):
        def on_train_step_end(self, run_context):
            raise RuntimeError("broken")

        def close(self):
            closed.append(True)

    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, [Broken()])
    assert closed == [True]


def test_a_long_epoch_is_announced_with_the_quicker_command(tmp_path, caplog):
    logging.getLogger("src").propagate = True
    with caplog.at_level(logging.INFO, logger="src"):
        fit(tmp_path, [ProgressBar(slow_epoch_seconds=0, quick_command="make demo")])
    assert any("an epoch takes about" in message for message in caplog.messages)
    assert any("make demo" in message for message in caplog.messages)


def overflowing(*steps, count=6):
    """Batches of one image, infinite at some steps: the loss is NaN, too."""
    pairs = [(np.ones((3, 8, 8), np.float32), np.zeros((8, 8), np.int32)) for _ in range(count)]
    for step in steps:
        pairs[step - 1][0][:] = np.inf
    return ds.GeneratorDataset(pairs, ["images", "labels"], shuffle=False).batch(1)


SCALER = lambda: ms.amp.DynamicLossScaler(1024, 2, 100)  # noqa: E731


def test_a_step_that_the_loss_scaler_leaves_out_is_borne_and_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    _, network, state = fit(
        tmp_path, [NonFiniteGuard(), MetricLogger()], data=overflowing(2, 5), max_epochs=1,
        loggers=[CsvLogger(tmp_path)], log_every_n_steps=2, loss_scaler=SCALER, rates=[10, 11, 12, 13, 14, 15],
    )  # fmt: skip
    assert np.isfinite(network.weight.asnumpy()).all() and state.step == 6
    assert "step 2: loss nan; its update was left out, the loss scale is now 512" in caplog.text
    logged = [
        [float(row[key]) for key in ("step", "lr", "train/loss_scale", "train/skipped_steps")]
        for row in rows(tmp_path)
    ]
    # The optimizer's own count: the schedule stands still while nothing is updated
    assert logged == [[2, 10, 512, 1], [4, 12, 512, 1], [6, 13, 256, 2]]
    assert all(math.isfinite(float(row["train/loss"])) for row in rows(tmp_path))


def test_a_run_that_makes_no_update_stops_and_names_the_loss_scale(tmp_path):
    with pytest.raises(
        UserError, match="no weight update in the 4 steps up to step 5.*scale of 64,"
    ):
        fit(
            tmp_path, [NonFiniteGuard(max_skipped_steps=3)], data=overflowing(2, 3, 4, 5, 6),
            loss_scaler=SCALER,
        )  # fmt: skip


def test_the_state_is_saved_after_every_nth_epoch_and_the_last(tmp_path):
    saved = []

    class Saved(Callback):
        def on_train_epoch_begin(self, run_context):
            path = tmp_path / "checkpoints" / "last_state.npz"
            saved.append(int(np.load(path)["global_step"]) if path.exists() else None)

    fit(tmp_path, [Saved()], max_epochs=5, save_every_n_epochs=2)  # of 4 steps
    assert saved == [None, None, 8, 8, 16]
    assert int(np.load(tmp_path / "checkpoints" / "last_state.npz")["global_step"]) == 20


def test_an_extra_metric_adds_its_scores_and_two_of_one_name_are_refused(tmp_path):
    class Pixels:
        """The share of the images' pixels that are predicted as class 1."""

        def clear(self):
            self.counts = np.zeros(2, np.int64)

        def update(self, target, pred):
            self.counts += [(pred == 1).sum(), pred.size]

        def scores(self):
            return {"ones": self.counts[0] / self.counts[1]}

    class AlwaysOne:
        protocol = {}

        def predict(self, image):
            return np.ones(image.shape[:2], np.uint8)

    def evaluator(*extra):
        return Evaluator(
            AlwaysOne(), samples(), ConfusionMatrix(2), ("a", "b"), "val", extra_metrics=extra
        )

    one = evaluator(Pixels())
    for _ in range(2):  # counts are cleared in between
        assert one.run(3).log_metrics("val")["val/ones"] == 1.0
        assert one.extra_metrics[0].counts.tolist() == [3960, 3960]  # 40 × (32 + 33 + 34)
    with pytest.raises(UserError, match="Pixels: gives a score ones, which another"):
        evaluator(Pixels(), Pixels()).run(3)


def test_processes_that_start_from_other_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ms.ops, "AllReduce", lambda: lambda value: value)  # there is none beside

    class Pair(ProcessGroup):
        def gather(self, value):
            return [value, value + 1]

    with pytest.raises(UserError, match="rank 1 starts from other weights than rank 0"):
        fit(tmp_path, [], process_group=Pair(0, 2))


def test_bfloat16_needs_no_loss_scaler(tmp_path):
    options = {"amp_level": "O2", "loss_scaler": SCALER}
    assert Trainer(tmp_path, **options).loss_scaler is SCALER
    assert Trainer(tmp_path, **options, amp_dtype="bfloat16").loss_scaler is None


@pytest.mark.parametrize("monitor", ["val/iou/more", "val/ema/iou/more"])
def test_a_monitored_class_that_no_validated_sample_shows_is_refused_before_training(
    tmp_path, monitor
):
    shown = samples()
    for sample in shown[:2]:
        sample.label[:] = 0
    evaluator = Evaluator(
        Segmenter(nn.Conv2d(3, 2, 1), PLAIN), shown, ConfusionMatrix(2), ("less", "more"), "val"
    )
    trained = []

    class Spy(Callback):
        def on_train_step_end(self, run_context):
            trained.append(self.trainer.state.step)

    options = {"monitor": monitor, "ema_decay": 0.9}
    message = rf"monitor={monitor}: none of the 2 samples .*pixel of 'more'.*monitor val/miou"
    with pytest.raises(UserError, match=message):
        fit(tmp_path, [Spy(), Validate()], evaluator, limit_val_batches=2, **options)
    assert trained == []
    assert evaluator.holds("more", 3) and evaluator.holds("less", 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_validation_below_the_training_and_a_pipe_neither(
    tmp_path, monkeypatch, terminal
):
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    monkeypatch.setattr("src.utils.console.console", screen)
    shown = []

    class Watched(Scripted):
        def run(self, count, on_sample=lambda: None):
            on_sample()
            time.sleep(0.3)  # bars are drawn ten times a second
            shown.append(screen.file.getvalue().rpartition("epoch 2/2")[2])
            return super().run(count)

    callbacks = [Validate(), ProgressBar()]
    fit(tmp_path, callbacks, Watched([0.5]), max_epochs=2, val_every_n_epochs=2)
    [after] = shown
    assert ("evaluating val" in after and "1/1" in after) == terminal
    assert bool(screen.file.getvalue()) == terminal


@pytest.mark.parametrize(
    "error, status",
    [(None, "completed"), (KeyboardInterrupt, "interrupted"), (ValueError, "failed")],
)
def test_loggers_learn_how_a_run_ended(tmp_path, error, status):
    class Ended(Logger):
        def close(self, status):
            ends.append(status)

    ends = []
    with suppress(KeyboardInterrupt, ValueError), Trainer(tmp_path, loggers=[Ended()]):
        if error is not None:
            raise error
    assert ends == [status]
