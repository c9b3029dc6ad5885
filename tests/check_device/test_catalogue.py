import pytest

from src.check_device import catalogue, layers, training
from src.check_device.check import NotSupported, judge
from tests import ROOT


def named(group, target="CPU"):
    return {check.name: check for check in catalogue.checks(target) if check.group == group}


@pytest.mark.parametrize(
    ("folder", "group", "word"),
    [("loss", "losses", "loss"), ("optimizer", "optimizers", "optimizer")],
)
def test_every_option_is_checked(folder, group, word):
    options = {path.stem for path in (ROOT / "conf" / folder).glob("*.yaml")}
    assert named(group).keys() == {f"{word} {option}" for option in options}


def test_every_group_has_a_check_and_every_check_a_group():
    assert {check.group for check in catalogue.checks("Ascend")} == set(catalogue.GROUPS)


def test_bfloat16_is_not_asked_of_the_cpu():
    with pytest.raises(NotSupported, match="A2"):
        training.bfloat16_step()


def test_an_upsampling_that_is_off_by_a_thousandth_is_found(monkeypatch):
    check = named("layers")["upsampling ×2, three sizes"]
    expected = check.expected()
    assert not judge(check, check.run(), expected, 0).failed

    class Off(layers.BilinearUpsample):
        def construct(self, x):
            return super().construct(x) * 1.001

    monkeypatch.setattr(layers, "BilinearUpsample", Off)
    result = judge(check, check.run(), expected, 0)
    assert result.failed and result.difference == pytest.approx(1e-3, rel=0.01)
