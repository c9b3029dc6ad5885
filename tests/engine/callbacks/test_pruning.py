"""A trial of a search: what it reports, and when it stops. The search is a file here."""

import json
from types import SimpleNamespace

import pytest

from src.engine.callbacks.pruning import Pruning


class Context:
    """MindSpore's run context, as far as it is used."""

    stopped = False

    def request_stop(self):
        self.stopped = True


@pytest.fixture
def trial(tmp_path):
    """The callback in a run whose second validation gave 0.25."""
    callback = Pruning(timeout=0.2)
    callback.trainer = SimpleNamespace(
        output_dir=tmp_path,
        monitor="val/miou",
        new_value=lambda: 0.25,
        state=SimpleNamespace(epoch=2, stop_reason=None),
    )
    return callback


def validate(trial, verdict=None):
    if verdict is not None:
        (trial.trainer.output_dir / "verdict.json").write_text(json.dumps(verdict))
    context = Context()
    trial.on_train_epoch_end(context)
    return context.stopped, trial.trainer.state.stop_reason


def test_without_a_search_nothing_is_done(trial, tmp_path):
    assert validate(trial) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_a_validation_is_reported_and_a_trial_that_is_good_enough_goes_on(trial, tmp_path):
    assert validate(trial, {"epoch": 2, "prune": False}) == (False, None)
    assert (tmp_path / "reports.jsonl").read_text() == '{"epoch": 2, "value": 0.25}\n'


def test_a_trial_that_is_given_up_stops_and_says_why(trial):
    expected = "pruned by the search: val/miou 0.2500 at epoch 2"
    assert validate(trial, {"epoch": 2, "prune": True}) == (True, expected)


def test_an_answer_to_an_earlier_report_is_none(trial):
    assert validate(trial, {"epoch": 1, "prune": True}) == (False, None)


def test_an_epoch_without_validation_reports_nothing(trial, tmp_path):
    trial.trainer.new_value = lambda: None
    assert validate(trial, {"epoch": 1, "prune": True}) == (False, None)
    assert not (tmp_path / "reports.jsonl").exists()
