"""W&B's sweep files: one for each search of `conf/sweep`, with the same values."""

from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.fcn_sweeps.sweepers import _distribution
from src.cli.command import compose_config
from src.cli.schema import check

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = {path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml")}
SEARCHES = sorted(SWEEPS - {"defaults"})  # which searches for nothing


def read(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("search", SEARCHES)
def test_the_file_of_a_search_has_its_keys_and_values(search):
    ours = read(f"conf/sweep/{search}.yaml")["hydra"]["sweeper"]["params"]
    theirs = read(f"examples/wandb/{search}.yaml")["parameters"]
    assert theirs.keys() == ours.keys()
    for key, values in ours.items():
        override = OverridesParser.create().parse_override(f"{key}={values}")
        if "values" in theirs[key]:
            typed = [f"{value}" for value in theirs[key]["values"]]
            assert typed == list(override.sweep_string_iterator())
        else:
            distribution = _distribution(override)
            assert theirs[key]["distribution"] == "log_uniform_values" and distribution.log
            assert (theirs[key]["min"], theirs[key]["max"]) == (distribution.low, distribution.high)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_command_that_an_agent_makes_of_it_composes(search):
    file = read(f"examples/wandb/{search}.yaml")
    parameters = file["parameters"].items()
    chosen = [f"{k}={v['values'][0] if 'values' in v else v['min']}" for k, v in parameters]
    command = []
    for part in file["command"]:
        known = {"${env}": ["env"], "${program}": [file["program"]], "${args_no_hyphens}": chosen}
        command += known.get(part, [part])
    assert command[:4] == ["env", "python", "-m", "src.train"]
    cfg = compose_config("train", command[4:])
    check(cfg, compose_config("train", []))
    assert cfg.trainer.monitor == file["metric"]["name"] and cfg.logger.wandb.mode == "online"
