"""README.zh-CN.md says what README.md says: headings, tables, commands, code, names, figures."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
)


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


PAIRS = list(zip(sections(ENGLISH), sections(CHINESE), strict=False))


def test_headings_are_as_many_and_of_the_same_levels():
    levels = [[level for level, _ in sections(text)] for text in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1]


def test_code_blocks_hold_the_same_commands_and_code():
    assert code_blocks(CHINESE) == code_blocks(ENGLISH)


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_a_section_names_the_same_things_and_its_tables_are_as_long(number):
    (_, english), (_, chinese) = PAIRS[number]
    names = [Counter(re.findall(r"`([^`]+)`", body)) for body in (english, chinese)]
    assert names[0] == names[1]
    rows = [re.findall(r"^\|", body, re.M) for body in (english, chinese)]
    assert len(rows[0]) == len(rows[1])
    items = [re.findall(r"^- ", body, re.M) for body in (english, chinese)]
    assert len(items[0]) == len(items[1])
    figures = [Counter(re.findall(r"\d+\.\d+", body)) for body in (english, chinese)]
    assert figures[0] == figures[1]


def test_each_points_to_the_other():
    assert "(README.zh-CN.md)" in ENGLISH and "(README.md)" in CHINESE
