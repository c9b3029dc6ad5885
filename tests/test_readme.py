"""Every command of the documents composes; every target, file and link they name exists."""

import re
import shlex
from pathlib import Path

import pytest

from src.cli.command import compose_config
from src.report.__main__ import parse_arguments as parse_report

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "experiments/README.md",
    "CONTRIBUTING.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")),
]
OWN_TESTS = "docs/extending.md"  # its files exist in `test_extending` alone
PLACEHOLDERS = {"DIR": "folder", "FILE": "file.ckpt", "RUN": "1", "…": "x"}


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def commands() -> list[str]:
    """`python -m src.…` in code blocks, tables and comments of the recipes."""
    found = set()
    for document in DOCUMENTS:
        if document.startswith(OWN_TESTS.removesuffix(".md")):
            continue
        for line in text(document).replace("\\\n", " ").splitlines():
            found |= set(re.findall(r"python -m src\.\w+[^`|#]*", line))
    for recipe in (ROOT / "conf").rglob("*.yaml"):
        for line in recipe.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                found |= set(re.findall(r"python -m src\.\w+[^`#]*", line))
    found = {c.split("  ")[0].strip() for c in found if "learning_rat=" not in c}  # a mistake
    return sorted(found)


@pytest.mark.parametrize("command", commands())
def test_every_command_composes(command):
    command = re.sub(r" \[[^\]]*\]", "", command)  # what may be left out
    command = re.sub(r"src\.distributed \d+ ", "src.", command)
    name, *arguments = shlex.split(command)[2:]
    name = name.removeprefix("src.")
    if "." in name:  # src.benchmark.scaling, whose arguments are no overrides
        return
    if name == "report":  # nor are these
        parse_report(arguments)
        return
    overrides = []
    for argument in arguments:
        if argument in ("-m", "--help") or "=" not in argument:
            continue
        key, value = argument.split("=", 1)
        if re.match(r"(glob|range|tag|interval)\(", value):  # for a sweep alone
            continue
        value = value if value.startswith("[") else value.split(",")[0]
        for placeholder, filled in PLACEHOLDERS.items():
            value = re.sub(rf"\b{placeholder}\b|{placeholder}(?!\w)", filled, value)
        overrides.append(f"{key}={value}")
    compose_config(name, overrides)


@pytest.mark.parametrize(
    "target",
    sorted({t for d in DOCUMENTS for t in re.findall(r"(?:^|`)make ([a-z-]+)", text(d), re.M)}),
)
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", text("Makefile"), re.M)


def test_msrun_is_for_several_hosts_alone():
    """At Ctrl-C it kills what it has started before that can save; `src.distributed` does not."""
    numbers = re.compile(
        r"^msrun .*--worker_num=(\d+) --local_worker_num=(\d+) .*--node_rank", re.M
    )
    for document in DOCUMENTS:
        several = [int(all) > int(here) for all, here in numbers.findall(text(document))]
        assert several == [True] * len(re.findall(r"^msrun ", text(document), re.M)), document
    for page in ("docs/ascend.md", "docs/several-devices.md"):
        assert "\npython -m src.distributed 8 train device=ascend" in text(page)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_link_of_a_document_leads_somewhere(document):
    whole, folder = text(document), (ROOT / document).parent
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", whole)
    assert not [link for link in links if not (folder / link).exists()]
    if not document.startswith(OWN_TESTS.removesuffix(".md")):
        named = re.findall(r"`((?:src|conf|tests|experiments|examples|docs)/[\w/.]+)`", whole)
        assert not [path for path in named if not (ROOT / path).exists()]


def test_every_option_of_every_group_is_listed_in_the_readme():
    table = text("README.md")
    for group in ("dataset", "model", "model/backbone", "loss", "optimizer", "scheduler",
                  "device", "inference", "metrics", "callbacks", "logger", "debug", "experiment", "sweep"):  # fmt: skip
        row = next(line for line in table.splitlines() if line.startswith(f"| `{group}` |"))
        for option in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{option.stem}`" in row, f"{group}={option.stem} is not in the README"
