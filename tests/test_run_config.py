"""The config of a run that is there: what is read of its folder, what of the command line."""

import pytest
from omegaconf import OmegaConf

from src.run_config import apply_run, with_choices_of_run
from src.utils.errors import UserError


@pytest.fixture
def checkpoint(tmp_path):
    """Of a run in a folder whose name Hydra wants in quotes."""
    run = tmp_path / "run (1)"
    (run / ".hydra").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    for name in ("config.resolved.yaml", "summary.json", "checkpoints/best.ckpt"):
        (run / name).write_text("{}")
    choices = {"dataset": "shapes", "model": "fcn16s", "model/backbone": "compact"}
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    OmegaConf.save(OmegaConf.create(hydra), run / ".hydra" / "hydra.yaml")
    return run / "checkpoints" / "best.ckpt"


def test_a_quoted_path_is_that_path(checkpoint):
    completed = with_choices_of_run([f"ckpt_path='{checkpoint}'"])
    assert completed[:3] == ["dataset=shapes", "model=fcn16s", "model/backbone=compact"]


def test_groups_of_the_command_line_replace_those_of_the_run(checkpoint):
    completed = with_choices_of_run([f"ckpt_path='{checkpoint}'", "model=fcn8s"])
    assert completed == ["dataset=shapes", f"ckpt_path='{checkpoint}'", "model=fcn8s"]


@pytest.mark.parametrize("content", [None, "", "hydra: [", "hydra: {}"])
def test_a_run_copied_without_its_hydra_folder_is_named(checkpoint, content):
    file = checkpoint.parents[1] / ".hydra" / "hydra.yaml"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match="hydra.yaml: cannot be read"):
        with_choices_of_run([f"ckpt_path='{checkpoint}'"])


def test_keys_that_have_gone_since_are_left_out_of_a_runs_config(checkpoint):
    backbone = {"_target_": "src.models.vgg.VGG", "depth": 16, "formulation": "auto"}
    earlier = OmegaConf.create({"model": {"stride": 8, "backbone": backbone}})
    OmegaConf.save(earlier, checkpoint.parents[1] / "config.resolved.yaml")
    cfg = OmegaConf.create({"ckpt_path": str(checkpoint), "model": {}})
    apply_run(cfg, [])
    del backbone["formulation"]
    assert cfg.model == {"stride": 8, "backbone": backbone}
