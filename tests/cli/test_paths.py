"""Paths on the command line are taken as the shell passed them; other texts need quotes."""

import shlex

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.cli.command import compose_config
from src.cli.paths import expand_home, is_sweep, quote_paths, quoted, value_of
from src.utils.errors import UserError
from tests import ROOT

NAMES = [
    "/a b/c", "  two blanks ", "a#b", "a=b", "a,b", "it's", 'a "b"', "'a' and 'b'", "[1] (2) {3}",
    "/数据/é😀", "a&b;c|d<e>f`g!", "C:\\data\\x", "ends with \\", "2012", "1e3", "true", "nan",
    "$HOME/x", "a:b", "x%20y", "glob(x)", "[a,b]", "{a:b}", "choice(a,b)", "photos/*/v?.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_hydra_reads_a_path_as_it_was_typed(name):
    (argument,) = quote_paths([f"dataset.root={name}"])
    assert value_of(argument) == name
    assert quote_paths([argument]) == [argument]  # the job of a sweep gets it quoted already
    assert value_of(f"resume={quoted(name)}") == name


def test_paths_arrive_in_the_config_and_in_what_follows_from_them():
    keys = ["paths.data_dir", "paths.experiments_dir", "model.weights", "resume", "output_dir"]
    name = "it's [a] #1, b=c (数据)"
    cfg = compose_config("train", quote_paths([f"{key}={name}" for key in keys]))
    assert [OmegaConf.select(cfg, key) for key in keys] == [name] * len(keys)
    assert cfg.dataset.root == f"{name}/shapes"


@pytest.mark.parametrize(
    "argument",
    ["resume=null", "dataset.root='a b'", 'input="x"', "dataset.root=${paths.data_dir}/voc",
     "model.weights=", "model=fcn8s", "~callbacks.figures", "+dataset.source.url=http://h/f",
     "dataset.crop_size=[64,64]", "-m", "--cfg", "job"],
)  # fmt: skip
def test_what_hydra_understands_stays(argument):
    assert quote_paths([argument]) == [argument]


@pytest.mark.parametrize("pattern", [r"^([^_]+)_", r"(\w{6})_", r"^(a|b),.*$", r"\d+", "[a-z]+"])
def test_a_regular_expression_arrives_as_it_was_typed(pattern):
    (argument,) = quote_paths([f"dataset.fold_by={pattern}"])
    assert compose_config("train", [argument]).dataset.fold_by == pattern


def test_an_interpolation_amid_other_characters_is_one_still():
    (argument,) = quote_paths(["dataset.root=${paths.data_dir}/数据"])
    assert compose_config("train", [argument]).dataset.root == "data/数据"


def test_in_a_sweep_several_paths_are_several_unless_there_is_one_of_that_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    both = "model.weights=a.ckpt,b.ckpt"
    assert quote_paths(["-m", both]) == ["-m", both]
    (tmp_path / "a.ckpt,b.ckpt").touch()
    assert quote_paths(["-m", both])[1] == "model.weights='a.ckpt,b.ckpt'"
    assert quote_paths(["-m", "hydra.sweep.dir=a,b"])[1] == "hydra.sweep.dir='a,b'"


@pytest.mark.parametrize(
    ("arguments", "sweeps"),
    [
        (["-m", "seed=0,1"], True),
        (["sweep=skips"], True),
        (["sweep=null"], False),
        (["seed=0"], False),
        (["sweep=skips", "hydra.mode=RUN"], False),  # one of its jobs
    ],
)
def test_a_sweep_is_known_by_its_command_line(arguments, sweeps):
    assert is_sweep(arguments) == sweeps


def test_the_home_directory_is_that_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me you")
    assert value_of(quote_paths(["dataset.root=~/voc"])[0]) == "/home/me you/voc"
    cfg = compose_config("train", ["paths.data_dir='~/data'", "model.weights='~/a.ckpt'"])
    expand_home(cfg)
    assert cfg.dataset.prepared_dir == "/home/me you/data/prepared/shapes"
    assert cfg.model.weights == "/home/me you/a.ckpt"


def test_a_home_directory_that_is_not_there_is_told():
    with pytest.raises(UserError, match="dataset.root=~nobody_at_all/x: there is no such home"):
        quote_paths(["dataset.root=~nobody_at_all/x"])


@pytest.mark.parametrize("argument", ["task_name=实验", "logger.wandb.name=it's #1", "tags=a&b"])
def test_the_line_about_another_text_shows_it_in_quotes_that_are_right(argument):
    with pytest.raises(UserError) as caught:
        quote_paths([argument])
    (repair,) = shlex.split(str(caught.value).rpartition(": ")[2])
    assert value_of(repair) == argument.partition("=")[2]
    assert quote_paths([repair]) == [repair]


def test_the_line_about_a_list_says_where_the_quotes_go():
    with pytest.raises(UserError, match="put texts of other than plain letters into quotes"):
        quote_paths(["tags=[实验,b]"])
    assert quote_paths(['tags=["实验",b]']) == ['tags=["实验",b]']


def test_hydra_makes_the_run_directory_in_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["paths.experiments_dir='~/runs'"], return_hydra_config=True)
    assert cfg.hydra.run.dir.startswith("/home/me/runs/train/runs/")
    assert cfg.hydra.sweep.dir.startswith("/home/me/runs/train/multiruns/")
