"""A run's `summary.json`, read and amended from outside."""

from pathlib import Path
from typing import Any

from src.utils.errors import UserError
from src.utils.files import read_json, write_json

SUMMARY = "summary.json"


def read_summary(path: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty if it was killed before its first write."""
    try:
        return read_json(path / SUMMARY)
    except UserError:
        return {}


def amend_summary(path: Path, **values: Any) -> None:
    """Changes values of the `summary.json` of a run whose process is gone."""
    write_json(path / SUMMARY, {**read_summary(path), **values})
