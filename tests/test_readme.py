"""Every command of the documents composes, and every target and file they name exists."""

import re
import shlex
from pathlib import Path

import pytest

from src.cli.command import compose_config
from src.report.__main__ import _parse as parse_report

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "docs/ascend.md", "experiments/README.md"]
PLACEHOLDERS = {"DIR": "folder", "FILE": "file.ckpt", "RUN": "1", "…": "x"}


def text(document: str) -> str:
    """The document, without the section on extending: its files exist in `test_extending` alone."""
    whole = (ROOT / document).read_text(encoding="utf-8")
    return re.sub(r"^## Extending\n.*?(?=^## )", "", whole, flags=re.M | re.S)


def commands() -> list[str]:
    """`python -m src.…` in code blocks, tables and comments of the recipes."""
    found = set()
    for document in DOCUMENTS:
        for line in text(document).splitlines():
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
    if name == "report":  # the one command without a config
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
    "target", sorted(set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", text("README.md"), re.M)))
)
def test_every_make_target_exists(target):
    assert re.search(rf"^{''.join(target)}:", text("Makefile"), re.M)


def test_every_path_named_in_the_documents_exists():
    named = re.findall(
        r"`((?:src|conf|tests|experiments|examples|docs)/[\w/.]+)`", text("README.md")
    )
    missing = [path for path in set(named) if not (ROOT / path).exists()]
    assert not missing


def test_every_link_within_the_project_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text("README.md"))
    assert "docs/demo.png" in links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_option_of_every_group_is_listed_in_the_readme():
    table = text("README.md")
    for group in ("dataset", "model", "model/backbone", "loss", "optimizer", "scheduler",
                  "device", "inference", "metrics", "callbacks", "logger", "debug", "experiment", "sweep"):  # fmt: skip
        row = next(line for line in table.splitlines() if line.startswith(f"| `{group}` |"))
        for option in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{option.stem}`" in row, f"{group}={option.stem} is not in the README"
