"""A page in Chinese says what the English one says: headings, tables, commands, names, figures."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README", "docs/ascend"]


def texts(page: str) -> tuple[str, str]:
    """The page in English and in Chinese."""
    english, chinese = (ROOT / f"{page}{end}" for end in (".md", ".zh-CN.md"))
    return english.read_text(encoding="utf-8"), chinese.read_text(encoding="utf-8")


def code_blocks(text: str) -> list[list[str]]:
    """The fenced blocks, line by line; what follows two blanks or a # is prose, and translated."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        lines = block.splitlines()
        if language not in ("python", "yaml"):
            lines = [re.split(r"\s{2,}|\s*#", line.strip())[0] for line in lines]
        found.append(lines)
    return found


def sections(text: str) -> list[tuple[str, str]]:
    """Level (`##`) and body, without the fenced blocks, of each section."""
    prose = re.sub(r"^```.*?^```\n", "", text, flags=re.M | re.S)
    return re.findall(r"^(#+) .*?\n(.*?)(?=^#|\Z)", prose, re.M | re.S)


PAIRS = [
    pytest.param(*pair, id=f"{page}-{number}")
    for page in PAGES
    for number, pair in enumerate(zip(*map(sections, texts(page)), strict=False))
]


@pytest.mark.parametrize("page", PAGES)
def test_headings_are_as_many_and_of_the_same_levels(page):
    levels = [[level for level, _ in sections(text)] for text in texts(page)]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_hold_the_same_commands_and_code(page):
    english, chinese = map(code_blocks, texts(page))
    assert chinese == english


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_a_section_names_the_same_things_and_its_tables_are_as_long(english, chinese):
    english, chinese = english[1], chinese[1]
    names = [Counter(re.findall(r"`([^`]+)`", body)) for body in (english, chinese)]
    assert names[0] == names[1]
    rows = [re.findall(r"^\|", body, re.M) for body in (english, chinese)]
    assert len(rows[0]) == len(rows[1])
    items = [re.findall(r"^- ", body, re.M) for body in (english, chinese)]
    assert len(items[0]) == len(items[1])
    figures = [Counter(re.findall(r"\d+\.\d+", body)) for body in (english, chinese)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("page", PAGES)
def test_each_points_to_the_other(page):
    english, chinese = texts(page)
    name = Path(page).name
    assert f"({name}.zh-CN.md)" in english and f"({name}.md)" in chinese


def test_ascends_page_names_the_versions_that_mindspores_own_checker_does():
    from mindspore import __version__
    from mindspore.run_check._check_version import AscendEnvChecker

    versions = ", ".join(f"`{version}`" for version in AscendEnvChecker(None).version)
    assert f"| `{__version__}` | {versions} |" in texts("docs/ascend")[0]
