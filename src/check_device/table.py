"""The table of results on the screen."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from src.check_device.check import Result


def table(title: str, results: Sequence[Result]) -> Table:
    """One row a check."""
    table = Table(title=title, title_justify="left")
    for column in ("operation", "against"):
        table.add_column(column, no_wrap=True)
    for column in ("largest difference", "allowed", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    for result in results:
        table.add_row(
            result.name,
            result.against,
            _number(result.difference, ".1e"),
            _number(result.allowed, ".0e"),
            _number(result.seconds, ".1f"),
            _verdict(result),
        )
    return table


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return format(value, form) if value else "0"


def _verdict(result: Result) -> Text:
    if result.unsupported is not None:
        return Text("not here", "dim")
    return Text("failed", "bold red") if result.failed else Text("ok", "green")
