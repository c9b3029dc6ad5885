import pytest
from omegaconf import OmegaConf

from src.benchmark.workers import Candidate, Result, paired_ratio, take_turns
from src.utils.errors import UserError

CFG = OmegaConf.create({"each": 1.0, "seed": 7})


def test_contenders_are_warmed_up_and_then_take_as_many_turns_as_there_are_rounds():
    slow = Candidate("tests.benchmark.work_fixtures.counted", overrides={"each": 2.0})
    results = take_turns(
        {"quick": Candidate("tests.benchmark.work_fixtures.counted"), "slow": slow}, CFG, rounds=3
    )
    # Three runs of warm-up, of which the first is reported
    assert results["quick"].first_seconds == 1
    assert results["quick"].seconds == [4, 5, 6]
    assert results["slow"].seconds == [8, 10, 12]
    assert results["slow"].peak_mb > 5
    summary = results["quick"].as_dict()
    assert (summary["seconds"], summary["fastest"], summary["slowest"]) == (5, 4, 6)
    assert (summary["images_per_second"], summary["seed"]) == (4 / 5, 7)
    assert paired_ratio(results["quick"], results["slow"]) == 0.5


def test_without_warm_up_the_second_run_is_the_first_that_is_timed():
    results = take_turns(
        {"it": Candidate("tests.benchmark.work_fixtures.counted", warm_up=False)}, CFG, rounds=2
    )
    assert (results["it"].first_seconds, results["it"].seconds) == (1, [2, 3])


@pytest.mark.slow
def test_one_that_waits_for_its_turn_takes_no_processor_time():
    spinning = {
        name: Candidate("tests.benchmark.work_fixtures.spinning") for name in ("one", "other")
    }
    results = take_turns(spinning, CFG, rounds=2)
    for result in results.values():  # while the other one ran for a second
        assert result.facts["seconds_between_runs"] < 0.5


def test_one_that_takes_too_long_or_fails_is_told_and_stops_nobody():
    candidates = {
        "counted": Candidate("tests.benchmark.work_fixtures.counted"),
        "asleep": Candidate("tests.benchmark.work_fixtures.asleep", patience=3),
        "failing": Candidate("tests.benchmark.work_fixtures.failing"),
        "dying": Candidate("tests.benchmark.work_fixtures.dying"),
    }
    results = take_turns(candidates, CFG, rounds=2)
    assert results["counted"].seconds == [4, 5]
    assert results["dying"].as_dict() == {"error": "its process ended without an error message"}
    assert results["asleep"].as_dict() == {"beyond_seconds": 3}
    assert results["failing"].as_dict() == {"error": "ZeroDivisionError: by zero"}
    assert paired_ratio(results["counted"], results["asleep"]) is None


def test_a_mistake_of_the_user_ends_the_race_in_its_own_words():
    with pytest.raises(UserError, match="^each=0: expected more$"):
        take_turns({"it": Candidate("tests.benchmark.work_fixtures.mistaken")}, CFG, rounds=1)


def test_the_ratio_is_that_of_neighbouring_runs():
    # 1/2, 2/2 and 9/3: a slow spell of the machine meets both of a round
    assert paired_ratio(Result([1, 2, 9]), Result([2, 2, 3])) == 1
    assert paired_ratio(Result([1, 2, 9]), Result([4])) == 0.5
