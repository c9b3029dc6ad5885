"""The recipes of `conf/experiment`, described by the comments at their head."""

from pathlib import Path

from rich.table import Table
from rich.text import Text


def recipes_table(directory: Path) -> Table:
    """What each recipe is, by the first line of its head, and the score that the head expects."""
    table = Table(title="experiment=…", title_justify="left")
    for name in ("recipe", "what", "expected"):
        table.add_column(name, overflow="fold")
    for path in sorted(directory.glob("*.yaml")):
        table.add_row(path.stem, *map(Text, described(path)))
    return table


def described(path: Path) -> tuple[str, str]:
    """The first line of a recipe's head, and the sentence there that begins with "Expected"."""
    lines = [
        line.lstrip("#").strip()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("#") and not line.startswith("# @package")
    ]
    expected = [line for line in lines if line.startswith("Expected")]
    score = expected[0].removeprefix("Expected").lstrip(":, ") if expected else "–"
    return lines[0], score.split(". ")[0].rstrip(".")
