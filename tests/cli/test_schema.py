"""The config check: unknown keys with the nearest name, types and ranges, one line each."""

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from src.cli.command import compose_config
from src.cli.rules import Rule
from src.cli.schema import check, explain_composition_error
from src.utils.errors import UserError

REFERENCE = {
    "seed": 0,
    "device": {"target": "CPU", "mode": "graph", "amp_level": "O0", "amp_dtype": "float16"},
    "trainer": {"_target_": "src.engine.trainer.Trainer", "max_epochs": 1, "accumulate": 1},
    "callbacks": {},
    "optimizer": {"_target_": "mindspore.nn.Momentum", "_partial_": True, "learning_rate": 0.1},
}


def refused(change: dict) -> str:
    cfg = OmegaConf.merge(OmegaConf.create(REFERENCE), change)
    with pytest.raises(UserError) as error:
        check(cfg, OmegaConf.create(REFERENCE))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_reference_passes_and_so_do_keys_that_only_the_target_takes():
    change = {"trainer": {"monitor": "val/macc"}, "optimizer": {"use_nesterov": True}}
    check(OmegaConf.merge(OmegaConf.create(REFERENCE), change), OmegaConf.create(REFERENCE))


@pytest.mark.parametrize(
    ("change", "named", "nearest"),
    [
        ({"sede": 1}, "sede", "'seed'"),
        ({"device": {"taget": "CPU"}}, "device.taget", "'device.target'"),
        ({"trainer": {"max_epoch": 3}}, "trainer.max_epoch", "'trainer.max_epochs'"),
        ({"optimizer": {"momentun": 0.9}}, "optimizer.momentun", "'optimizer.momentum'"),
    ],
)
def test_an_unknown_key_gets_the_nearest_name(change, named, nearest):
    line = refused(change)
    assert line.startswith(f"{named}: unknown key")
    assert f"did you mean {nearest}?" in line


@pytest.mark.parametrize(
    ("command", "override", "expected"),
    [
        ("prepare", "device.threads=1", "device: unknown key; known here: dataset, "),
        ("train", "optimizr.learning_rate=1", "optimizr: unknown key; did you mean 'optimizer'?"),
        (
            "train",
            "optimizer.parameters.lr_factor.bias=1",
            "optimizer.parameters.lr_factor: unknown key; did you mean "
            "'optimizer.parameters.lr_factors'?",
        ),
    ],
)
def test_a_key_in_an_unknown_group_names_the_group(command, override, expected):
    with pytest.raises(ConfigCompositionException) as error:
        compose_config(command, [override])
    line = explain_composition_error(error.value, lambda given: compose_config(command, given))
    assert line.startswith(expected)


def test_keys_of_a_callbacks_own_target_are_checked_too():
    target = "src.engine.callbacks.validation.EarlyStopping"
    line = refused({"callbacks": {"mine": {"_target_": target, "patiense": 3}}})
    assert "callbacks.mine.patiense" in line and "'callbacks.mine.patience'" in line


def test_targets_in_a_list_are_checked_too():
    jitter = "{_target_:src.data.augmentations.PhotometricJitter,brightnes:0.2}"
    cfg = compose_config("train", [f"dataset.augmentations=[{jitter}]"])
    with pytest.raises(UserError, match="augmentations.0.brightnes.*augmentations.0.brightness"):
        check(cfg, compose_config("train", []))


def test_a_target_that_cannot_be_imported_is_named():
    line = refused({"callbacks": {"mine": {"_target_": "src.nowhere.Thing"}}})
    assert "callbacks.mine._target_=src.nowhere.Thing" in line


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": -1}, "seed=-1: expected a whole number from 0"),
        ({"seed": 1.5}, "seed=1.5: expected a whole number"),
        ({"seed": True}, "seed=true: expected a whole number"),
        ({"device": {"mode": "eager"}}, "device.mode=eager: expected one of graph, pynative"),
        ({"trainer": {"max_epochs": 0}}, "trainer.max_epochs=0: expected a whole number"),
        ({"trainer": {"max_epochs": "ten"}}, "trainer.max_epochs=ten: expected a whole number"),
        ({"optimizer": {"learning_rate": -0.1}}, "optimizer.learning_rate=-0.1: expected"),
        ({"optimizer": {"learning_rate": float("nan")}}, "optimizer.learning_rate=nan"),
        ({"dataset": {"crop_size": [512]}}, "dataset.crop_size=[512]: expected a list of two"),
        ({"dataset": {"crop_size": 512}}, "dataset.crop_size=512: expected a list of two"),
        (
            {"dataset": {"max_class_share": 75}},
            "dataset.max_class_share=75: expected a number above 0 and up to 1 or null",
        ),
        (
            {"dataset": {"rare_class_sampling": 0}},
            "dataset.rare_class_sampling=0: expected a number above 0 or null",
        ),
        ({"dataset": {"scale_range": [0, 2.0]}}, "dataset.scale_range=[0,2.0]: expected"),
        ({"trainer": {"monitor": 3}}, "trainer.monitor=3: expected a text"),
    ],
)
def test_impossible_values_say_what_was_expected(change, expected):
    dataset = {"crop_size": [32, 32], "scale_range": [1, 1]}
    dataset |= {"max_class_share": None, "rare_class_sampling": None}
    reference = REFERENCE | {"dataset": dataset}
    cfg = OmegaConf.merge(OmegaConf.create(reference), change)
    with pytest.raises(UserError) as error:
        check(cfg, OmegaConf.create(reference))
    assert str(error.value).startswith(expected)


def test_rules_by_hand():
    assert Rule(float, low=0).allows(1) and not Rule(float, low=0).allows(True)
    assert Rule(int, low=1, nullable=True).allows(None) and not Rule(int, low=1).allows(None)
    assert Rule(int, low=32, pair=True).allows([32, 64])
    assert not Rule(int, low=32, pair=True).allows([32, 31])


def test_a_value_that_must_be_given_and_is_not_is_named():
    needy = OmegaConf.create({**REFERENCE, "seed": "???"})
    with pytest.raises(UserError, match="^seed: is not given and has no default"):
        check(needy, needy)


@pytest.mark.parametrize(
    ("command", "override", "expected"),
    [
        ("train", "inference.window=512", "a list of two: each a whole number of at least 32"),
        ("train", "inference.scales=0.5", "a list: each a number above 0"),
        ("train", "dataset.mean=123", "a list: each a number"),
        ("train", "loss.class_weights=2", "a list: each a number"),
        ("train", "model.frozen=null", "a list: each a text"),
        ("train", "model.skip_scales=0.1", "a list: each a number"),
        ("train", "dataset.class_names=abc", "a list: each a text"),
        ("train", "tags=abc", "a list: each a text"),
        ("prepare", "splits=val", "a list: each a text"),
        ("preview", "count=abc", "a whole number of at least 1"),
    ],
)
def test_a_value_in_the_place_of_a_list_is_refused(command, override, expected):
    cfg = compose_config(command, [override])
    with pytest.raises(UserError) as error:
        check(cfg, compose_config(command, []))
    assert str(error.value).startswith(f"{override}: expected {expected}")


def test_a_rule_may_stand_for_class_weights():
    cfg = compose_config("train", ["loss.class_weights=median_frequency"])
    check(cfg, compose_config("train", []))


def test_a_rule_does_not_stand_for_a_single_number():
    cfg = compose_config("train", ["loss=tversky", "loss.alpha=median_frequency"])
    with pytest.raises(UserError, match="loss.alpha=median_frequency: expected a number"):
        check(cfg, compose_config("train", []))
