"""The Optuna search: what it asks for, gives up and remembers. No run is trained."""

import json
import re

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from hydra_plugins.fcn_sweeps.sweepers import OptunaSweeper, _distribution
from src.sweeps.jobs import SweepDirectory
from src.sweeps.search import STUDY, Search
from src.utils.errors import UserError
from tests.sweeps.sweep_fixtures import finish

MEDIAN = optuna.pruners.MedianPruner(n_startup_trials=2)
HALVING = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)


def search(path, n_trials=9, pruner=MEDIAN, resumed=False):
    sweep = SweepDirectory(path, [], "", resumed)
    space = {"x": FloatDistribution(0, 1)}
    sampler = optuna.samplers.RandomSampler
    return sweep, Search(sweep, space, "maximize", n_trials, sampler, pruner, seed=0)


def reports(job, *values):
    """What a run writes after its validations; gives what the search answered."""
    lines = [json.dumps({"epoch": i, "value": v}) for i, v in enumerate(values, 1)]
    (job.path / "reports.jsonl").write_text("".join(f"{line}\n" for line in lines))


def verdict(job):
    return json.loads((job.path / "verdict.json").read_text())


def states(path):
    trials = search(path, resumed=True)[1].study.trials
    return [trial.state for trial in trials]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(0.5,2)", FloatDistribution(0.5, 2)),
        ("a=tag(log,interval(0.001,0.1))", FloatDistribution(0.001, 0.1, log=True)),
        ("a=tag(log,int(interval(8,64)))", IntDistribution(8, 64, log=True)),
        ("a=range(3)", IntDistribution(0, 2)),
        ("a=range(0,100,30)", IntDistribution(0, 90, step=30)),
        ("a=range(1,8,3)", IntDistribution(1, 7, step=3)),
    ],
)
def test_hydras_ways_to_give_values_become_distributions(override, expected):
    assert _distribution(OverridesParser.create().parse_override(override)) == expected


@pytest.mark.parametrize("override", ["a=b,1,[2,3]", "a=choice(b,1,[2,3])"])
def test_choices_stay_as_they_were_typed(override):
    parsed = OverridesParser.create().parse_override(override)
    assert list(_distribution(parsed).choices) == ["b", "1", "[2,3]"]


def test_a_value_below_the_median_of_the_others_is_given_up(tmp_path):
    _, found = search(tmp_path / "s")
    jobs = found.jobs()
    for value in (0.4, 0.6):
        job = next(jobs)
        reports(job, value)
        found.ended(finish(job, value))
    third = next(jobs)
    reports(third, 0.55)  # the median of 0.4 and 0.6 is 0.5
    found.look(third)
    assert verdict(third) == {"epoch": 1, "prune": False}
    found.ended(finish(third, 0.55))
    fourth = next(jobs)
    reports(fourth, 0.54)  # of 0.4, 0.6, 0.55 it is 0.55
    found.look(fourth)
    assert verdict(fourth) == {"epoch": 1, "prune": True}


def test_successive_halving_lets_the_better_half_go_on(tmp_path):
    _, found = search(tmp_path / "s", pruner=HALVING)
    jobs = found.jobs()
    answers = []
    for value in (0.5, 0.4, 0.6, 0.3):
        job = next(jobs)
        reports(job, value)
        found.look(job)
        answers.append(verdict(job)["prune"])
    assert answers == [False, True, False, True]


def test_a_value_that_is_no_number_is_answered_and_told_nobody(tmp_path):
    found = search(tmp_path / "s", pruner=HALVING)[1]
    job = next(found.jobs())
    reports(job, float("nan"))
    found.look(job)
    assert verdict(job) == {"epoch": 1, "prune": False}
    assert found.study.trials[0].intermediate_values == {}


def test_outcomes_are_told_and_failed_trials_have_no_value(tmp_path):
    sweep, found = search(tmp_path / "s", n_trials=4)
    jobs = found.jobs()
    found.ended(finish(next(jobs), 0.7))
    found.ended(finish(next(jobs), None, "failed", "no memory"))
    third = next(jobs)
    reports(third, 0.2)
    found.ended(finish(third, 0.2, reason="pruned by the search: …"))
    found.ended(finish(next(jobs), None))  # never validated
    assert next(jobs, None) is None
    sweep.lock.release()
    assert states(tmp_path / "s") == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL,
    ]  # fmt: skip


def test_a_search_that_was_killed_goes_on_with_the_trials_that_were_at_work(tmp_path):
    sweep, found = search(tmp_path / "s", n_trials=3)
    jobs = found.jobs()
    found.ended(finish(next(jobs), 0.7))
    at_work = next(jobs)
    found.ended(finish(at_work, 0.1, "interrupted"))
    sweep.lock.release()
    with open(tmp_path / "s" / STUDY, "a") as file:
        file.write('{"op_code": 5, "tri')  # killed within a line

    sweep, found = search(tmp_path / "s", n_trials=3, resumed=True)
    jobs = found.jobs()
    again = next(jobs)
    assert (again.number, again.overrides) == (1, at_work.overrides)
    found.ended(finish(again, 0.8))
    new = next(jobs)
    assert new.number == 2 and next(jobs, None) is None
    values = {job.overrides for job in sweep.jobs}
    assert len(values) == 3  # the sampler does not begin with the same values again


def test_a_job_that_the_list_had_no_time_for_is_known_from_the_study(tmp_path):
    sweep, found = search(tmp_path / "s")
    asked = next(found.jobs())
    sweep.lock.release()
    (tmp_path / "s" / "jobs.json").write_text('{"common": [], "jobs": []}')
    again = next(search(tmp_path / "s", resumed=True)[1].jobs())
    assert again == asked


@pytest.mark.parametrize(
    "override", ["a=tag(log,interval(0,0.1))", "a=interval(0.1,0.001)", "a=tag(log,interval(-1,1))"]
)
def test_an_interval_that_none_can_draw_from_is_refused(override):
    sweeper = OptunaSweeper(1, None, None, 0, {})
    with pytest.raises(UserError, match=re.escape(override)):
        sweeper.space([OverridesParser.create().parse_override(override)])
