"""What the log says of an epoch."""

import logging
from types import SimpleNamespace

from src.engine.callbacks import progress
from src.engine.callbacks.progress import ProgressBar
from src.engine.state import FitState


def test_the_speed_of_an_epoch_is_that_of_its_steps_without_the_validation(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    caplog.set_level(logging.INFO)
    state = FitState(steps_per_epoch=3, batch_size=4)
    bar = ProgressBar()
    bar.trainer = SimpleNamespace(state=state, max_epochs=1, learning_rate=lambda step: 0.1)
    bar.on_train_begin(None)
    bar.on_train_epoch_begin(None)
    for step in (1, 2, 3):  # the first one compiles for 10 s, the others take 2 s each
        now[0] += 10 if step == 1 else 2
        state.step, state.loss, state.epoch = step, 1.0, 1
        bar.on_train_step_end(None)
    now[0] += 100  # validation
    bar.on_train_epoch_end(None)
    bar.close()
    assert "epoch 1/1  loss 1.0000  lr 1.00e-01  2.0 images/s" in caplog.text
