import functools
import time

import pytest

from src.check_device import cann, catalogue, layers, training
from src.check_device.check import NotSupported, judge
from src.device.lazy_inline import parse_equal_blocks_once
from src.engine import train_step
from tests import ROOT

checks = functools.cache(catalogue.checks)  # composes the config of each loss and optimizer


def named(group, target="CPU"):
    return {check.name: check for check in checks(target) if check.group == group}


@pytest.mark.parametrize(
    ("folder", "group", "word"),
    [("loss", "losses", "loss"), ("optimizer", "optimizers", "optimizer")],
)
def test_every_option_is_checked(folder, group, word):
    options = {path.stem for path in (ROOT / "conf" / folder).glob("*.yaml")}
    assert named(group).keys() == {f"{word} {option}" for option in options}


def test_every_group_has_a_check_and_every_check_a_group():
    assert {check.group for check in checks("Ascend")} == set(catalogue.GROUPS)


def test_what_the_cpu_does_not_have_is_not_asked_of_it():
    with pytest.raises(NotSupported, match="A2"):
        training.bfloat16_step()
    for check in (training.sink_mode, training.sink_that_fails):
        with pytest.raises(NotSupported, match="CPU"):
            check()
    with pytest.raises(NotSupported, match="Ascend"):
        cann.import_modules()


def test_losses_are_computed_as_the_device_does_and_compared_with_the_cpus_way():
    check = named("losses", "Ascend")["loss cross_entropy"]
    one_hot = [partial.args[0]["loss"]["one_hot"] for partial in (check.run, check.expected)]
    assert one_hot == [True, False]
    found, expected = check.run(), check.expected()
    assert judge(check, found, expected, 0).difference < 1e-6


@pytest.mark.slow
def test_two_equal_fits_differ_by_nothing_and_unequal_ones_by_more_than_is_allowed(monkeypatch):
    check = named("sink_mode")["sink mode, two epochs"]
    fed = training.fit(sink_mode=False)
    monkeypatch.setattr(training, "fit", lambda sink_mode: fed)
    monkeypatch.setattr(training.ms, "get_context", lambda _: "Ascend")
    assert judge(check, check.run(), None, 0).difference == 0
    off = {name: array * 1.1 for name, array in fed.items()}
    monkeypatch.setattr(training, "fit", lambda sink_mode: off if sink_mode else fed)
    assert judge(check, check.run(), None, 0).difference == pytest.approx(0.1, rel=1e-5)


def test_a_part_of_cann_that_cannot_be_imported_is_an_error(monkeypatch):
    monkeypatch.setattr(cann, "MODULES", ("json", "no_such_part"))
    monkeypatch.setattr(training.ms, "get_context", lambda _: "Ascend")
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        cann.import_modules()
    monkeypatch.setattr(cann, "MODULES", ("json",))
    assert not judge(
        named("software")["CANN's Python parts"], cann.import_modules(), None, 0
    ).failed


@pytest.mark.slow
def test_a_graph_for_each_size_is_found_by_its_time(monkeypatch):
    check = named("inference")["seconds for a new size"]
    assert not judge(check, check.run(), None, 0).failed
    predict, seen = training.Segmenter.predict, set()

    def compiling(self, image):
        if image.shape not in seen:
            time.sleep(1)
        seen.add(image.shape)
        return predict(self, image)

    monkeypatch.setattr(training.Segmenter, "predict", compiling)
    assert judge(check, check.run(), None, 0).failed


@pytest.mark.slow
def test_a_process_that_does_not_end_after_an_error_is_found():
    check = named("sink_mode")["an error in a sink"]
    assert not judge(check, training.end_after_error("CPU", 0), None, 0).failed
    assert judge(check, training.end_after_error("CPU", 0, patience=0.1), None, 0).failed
    with pytest.raises(RuntimeError, match="exit code 1: .*device.target=TPU"):
        training.end_after_error("TPU", 0)


@pytest.mark.slow
def test_equal_blocks_that_are_taken_for_one_another_are_found(monkeypatch):
    check = named("training")["equal blocks, parsed once"]
    marked = []

    def confused(network):
        parse_equal_blocks_once(network)
        blocks = [c for _, c in network.cells_and_names() if vars(c).get("no_inline") is False]
        marked.append(len(blocks))
        first, second = (block.convs[0].weight for block in blocks[:2])
        first.set_data(second)

    monkeypatch.setattr(train_step, "parse_equal_blocks_once", confused)
    assert judge(check, check.run(), None, 0).failed
    assert marked == [2 + 2]


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
