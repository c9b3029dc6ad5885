"""A Chinese page says what the English one says: headings, tables, commands, code, names, figures."""

import re
from collections import Counter

import pytest

from tests import ROOT

TRANSLATED = sorted([*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").glob("*.zh-CN.md")])
ORIGINALS = [page.with_name(page.name.replace(".zh-CN", "")) for page in TRANSLATED]
PAIRS = [
    tuple(page.read_text(encoding="utf-8") for page in pair)
    for pair in zip(ORIGINALS, TRANSLATED, strict=True)
]
each_page = pytest.mark.parametrize(
    ("english", "chinese"), PAIRS, ids=[page.stem for page in ORIGINALS]
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


@each_page
def test_headings_are_as_many_and_of_the_same_levels(english, chinese):
    assert [level for level, _ in sections(chinese)] == [level for level, _ in sections(english)]


@each_page
def test_code_blocks_hold_the_same_commands_and_code(english, chinese):
    assert code_blocks(chinese) == code_blocks(english)


@each_page
def test_a_section_names_the_same_things_and_its_tables_are_as_long(english, chinese):
    for (_, one), (_, other) in zip(sections(english), sections(chinese), strict=True):
        for pattern in (r"`([^`]+)`", r"\d+\.\d+"):  # names, figures
            assert Counter(re.findall(pattern, other)) == Counter(re.findall(pattern, one))
        for pattern in (r"^\|", r"^- "):  # rows, items
            found = [len(re.findall(pattern, text, re.M)) for text in (one, other)]
            assert found[0] == found[1], one


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=[page.stem for page in ORIGINALS])
def test_each_points_to_the_other(number):
    english, chinese = PAIRS[number]
    assert f"({TRANSLATED[number].name})" in english and f"({ORIGINALS[number].name})" in chinese
