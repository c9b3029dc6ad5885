"""The config of a run that is there: what is read of its folder, what of the command line."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.cli.paths import quoted, value_of
from src.cli.saved_config import ResumedRun, with_choices_of_run, with_config_of_run
from src.utils.errors import UserError


@pytest.fixture
def checkpoint(tmp_path):
    """Of a run in a folder whose name is none in Hydra's grammar."""
    run = tmp_path / "my run's (1), #2"
    (run / ".hydra").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    for name in ("config.resolved.yaml", "summary.json", "checkpoints/best.ckpt"):
        (run / name).write_text("{}")
    choices = {"dataset": "shapes", "model": "fcn16s", "model/backbone": "compact"}
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    OmegaConf.save(OmegaConf.create(hydra), run / ".hydra" / "hydra.yaml")
    return run / "checkpoints" / "best.ckpt"


def test_a_quoted_path_is_that_path(checkpoint):
    completed = with_choices_of_run([f"ckpt_path={quoted(checkpoint)}"], "eval")
    assert completed[:3] == ["dataset=shapes", "model=fcn16s", "model/backbone=compact"]


def test_a_runs_directory_is_replaced_by_its_checkpoint(checkpoint):
    completed = with_choices_of_run([f"ckpt_path={quoted(checkpoint.parents[1])}"], "predict")
    assert completed[0] == "dataset=shapes"
    assert value_of(completed[-1]) == str(checkpoint)


def test_a_checkpoint_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(UserError, match="nowhere.ckpt: no such file"):
        with_choices_of_run([f"ckpt_path={tmp_path}/nowhere.ckpt"], "eval")


def test_a_resumed_run_keeps_its_directory_whatever_its_name(checkpoint):
    run = checkpoint.parents[1]
    (run / ".hydra" / "overrides.yaml").write_text("[]")
    arguments = [f"resume={quoted(run)}"]
    completed = ResumedRun.of(arguments).arguments(arguments)
    assert [value_of(a) for a in completed if a.startswith("output_dir=")] == [str(run)]


def test_groups_of_the_command_line_replace_those_of_the_run(checkpoint):
    completed = with_choices_of_run([f"ckpt_path={quoted(checkpoint)}", "model=fcn8s"], "eval")
    assert completed == ["dataset=shapes", f"ckpt_path={quoted(checkpoint)}", "model=fcn8s"]


@pytest.mark.parametrize("content", [None, "", "hydra: [", "hydra: {}"])
def test_a_run_copied_without_its_hydra_folder_is_named(checkpoint, content):
    file = checkpoint.parents[1] / ".hydra" / "hydra.yaml"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match="hydra.yaml: cannot be read"):
        with_choices_of_run([f"ckpt_path={quoted(checkpoint)}"], "eval")


@pytest.fixture
def config(checkpoint):
    """The config of the run and what a command composes for it, interpolations and all."""
    data = {"root": "${paths.data_dir}/shapes", "ignore_index": 255, "seed": "${seed}"}
    composed = {
        "paths": {"data_dir": "data"},
        "seed": 0,
        "dataset": data,
        "loss": {"ignore_index": "${dataset.ignore_index}"},
        "logger": {"csv": {"output_dir": "${output_dir}"}},
        "output_dir": str(checkpoint.parents[1]),
        "ckpt_path": str(checkpoint),
    }
    cfg = OmegaConf.create(composed)
    OmegaConf.save(cfg, checkpoint.parents[1] / ".hydra" / "config.yaml")
    OmegaConf.save(cfg, checkpoint.parents[1] / "config.resolved.yaml", resolve=True)
    return cfg


def test_what_was_interpolated_from_a_value_given_to_eval_follows_it(config):
    config.paths.data_dir = "/disk"
    config = with_config_of_run(config, ["paths.data_dir=/disk"])
    assert config.dataset.root == "/disk/shapes"


def test_a_root_chosen_by_hand_stays_where_it_is(config, checkpoint):
    file = checkpoint.parents[1] / "config.resolved.yaml"
    resolved = OmegaConf.load(file)
    resolved.dataset.root = "/my/own"
    OmegaConf.save(resolved, file)
    config.paths.data_dir = "/disk"
    config = with_config_of_run(config, ["paths.data_dir=/disk"])
    assert config.dataset.root == "/my/own"


def test_what_building_decided_is_kept(config, checkpoint):
    """As the weights' normalisation, where the config says null."""
    file = checkpoint.parents[1] / "config.resolved.yaml"
    resolved = OmegaConf.load(file)
    resolved.dataset.color_order, resolved.dataset.mean = "bgr", [103.53, 116.28, 123.675]
    OmegaConf.save(resolved, file)
    config = with_config_of_run(config, [])
    assert config.dataset.color_order == "bgr"
    assert config.dataset.mean == [103.53, 116.28, 123.675]


def test_the_overrides_of_a_resume_count_and_what_is_interpolated_from_them_follows(
    config, checkpoint
):
    run = checkpoint.parents[1]
    OmegaConf.save(["dataset.ignore_index=7"], run / ".hydra" / "overrides.resume-1.yaml")
    resolved = OmegaConf.load(run / "config.resolved.yaml")
    resolved.dataset.ignore_index = resolved.loss.ignore_index = 7
    OmegaConf.save(resolved, run / "config.resolved.yaml")
    config = ResumedRun(run, ["dataset.ignore_index=9"]).with_saved_config(config)
    assert (config.dataset.ignore_index, config.loss.ignore_index) == (9, 9)


def test_what_was_interpolated_follows_in_a_resumed_run_and_so_does_a_moved_directory(config):
    run = Path(config.output_dir)
    moved = run.rename(run.with_name("moved"))
    overrides = ["dataset.ignore_index=0", "seed=5"]
    config.output_dir = str(moved)  # as Hydra composes it for `resume=moved`
    config = ResumedRun(moved, overrides).with_saved_config(config)
    assert (config.dataset.ignore_index, config.loss.ignore_index) == (0, 0)
    assert (config.seed, config.dataset.seed) == (5, 5)
    assert config.logger.csv.output_dir == str(moved)
    assert config.dataset.root == "data/shapes"


def test_the_metrics_of_a_run_are_chosen_for_eval_alone(checkpoint):
    file = checkpoint.parents[1] / ".hydra" / "hydra.yaml"
    hydra = OmegaConf.load(file)
    hydra.hydra.runtime.choices.metrics = "boundary_iou"
    OmegaConf.save(hydra, file)
    arguments = [f"ckpt_path={quoted(checkpoint)}"]
    assert "metrics=boundary_iou" in with_choices_of_run(arguments, "eval")
    assert "metrics=boundary_iou" not in with_choices_of_run(arguments, "predict")


@pytest.mark.parametrize(
    ("reason", "repair"),
    [
        ("pruned by the search: val/miou 0.1 at epoch 3", "callbacks.pruning=null goes on"),
        ("no better val/miou for 5 validations", "callbacks.early_stopping.patience goes on"),
    ],
)
def test_a_run_that_stopped_early_says_what_goes_on(checkpoint, reason, repair):
    run = checkpoint.parents[1]
    (run / ".hydra" / "overrides.yaml").write_text("[]")
    (run / "config.resolved.yaml").write_text("trainer: {max_epochs: 9}")
    summary = {"status": "completed", "last": {"epoch": 3}, "reason": reason}
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=repair):
        ResumedRun.of([f"resume={quoted(run)}"])
