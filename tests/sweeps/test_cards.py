"""Jobs of a sweep on a machine with several cards."""

from types import SimpleNamespace

import pytest

from hydra_plugins.fcn_sweeps import launchers
from hydra_plugins.fcn_sweeps.launchers import ProcessLauncher
from src.device.cards import visible_cards
from src.utils.errors import UserError
from tests.sweeps.sweep_fixtures import job

# Values of the variables; the list ends at the first name that is none
VISIBLE = {"": [], "-1": [], "0,-1,1": ["0"], "2, 3": ["2", "3"], "GPU-8932f937": ["GPU-8932f937"]}


@pytest.mark.parametrize(
    ("target", "variable", "file"),
    [("Ascend", "ASCEND_RT_VISIBLE_DEVICES", "davinci"), ("GPU", "CUDA_VISIBLE_DEVICES", "nvidia")],
)
def test_cards_are_those_of_the_variable_or_of_the_device_files(
    target, variable, file, tmp_path, monkeypatch
):
    for name in ("0", "1", "_manager", "ctl"):
        (tmp_path / f"{file}{name}").touch()
    monkeypatch.delenv(variable, raising=False)
    assert visible_cards(target, tmp_path) == ["0", "1"]
    monkeypatch.setenv(variable, "4,7,8")
    assert visible_cards(target, tmp_path) == ["4", "7", "8"]
    for value, cards in VISIBLE.items():
        monkeypatch.setenv(variable, value)
        assert visible_cards(target, tmp_path) == cards
    assert visible_cards("CPU", tmp_path) == []


class Running:
    exit_code = None

    def poll(self):
        return self.exit_code


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begins jobs with a launcher of two cards; gives the card that a job may see, and its process."""
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,7")
    seen = []

    def start(job, environment):
        seen.append(environment.get("ASCEND_RT_VISIBLE_DEVICES"))
        return Running()

    monkeypatch.setattr(launchers.process, "start", start)

    def launcher(n_jobs, target="Ascend", id=0):
        made = ProcessLauncher(n_jobs)
        made.config = SimpleNamespace(
            device=SimpleNamespace(target=target, id=id),
            hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path))),
        )
        return lambda number: (made.start(job(tmp_path, number)), seen[-1])

    return launcher


def test_each_job_has_a_card_of_its_own_and_a_free_one_is_used_again(begin):
    start = begin(n_jobs=2)
    first, card = start(0)
    assert card == "4"
    assert start(1)[1] == "7"
    first.exit_code = 0
    assert start(2)[1] == "4"


def test_more_jobs_than_cards_share_them(begin):
    start = begin(n_jobs=4)
    assert [start(number)[1] for number in range(4)] == ["4", "7", "4", "7"]


def test_a_job_alone_or_on_the_cpu_sees_what_the_sweep_sees(begin):
    assert begin(n_jobs=1)(0)[1] is None
    assert begin(n_jobs=2, target="CPU")(0)[1] is None


def test_jobs_of_a_sweep_without_cards_get_none(begin, monkeypatch):
    start = begin(n_jobs=2)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "-1")
    assert start(0)[1] is None


def test_a_chosen_card_is_refused_where_jobs_get_their_own(begin):
    with pytest.raises(UserError, match="device.id=3.*ASCEND_RT_VISIBLE_DEVICES"):
        begin(n_jobs=2, id=3)(0)
