"""A run's `summary.json`, read and amended from outside."""

from pathlib import Path
from typing import Any, NamedTuple

from src.utils.errors import UserError
from src.utils.files import read_json, write_json

SUMMARY = "summary.json"
TRACKER_ID, TRACKER_URL = "_id", "_url"  # end the keys of a run's id and page in a tracker


class Tracked(NamedTuple):
    """A run as a tracker knows it."""

    id: str  # or the folder below the run directory
    url: str | None


def read_summary(path: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty if it was killed before its first write."""
    try:
        return read_json(path / SUMMARY)
    except UserError:
        return {}


def trackers(summary: dict[str, Any]) -> dict[str, Tracked]:
    """The trackers that have the run, by logger name."""
    found = {}
    for key, value in summary.items():
        name = key.removesuffix(TRACKER_ID)
        if key != name and value is not None:
            found[name] = Tracked(str(value), summary.get(name + TRACKER_URL))
    return found


def amend_summary(path: Path, **values: Any) -> None:
    """Changes values of the `summary.json` of a run whose process is gone."""
    write_json(path / SUMMARY, {**read_summary(path), **values})
