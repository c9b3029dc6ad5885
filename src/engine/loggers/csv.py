"""The log of a run as a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.engine.loggers.base import Logger
from src.utils.errors import UserError
from src.utils.files import write_text

_FIRST_COLUMNS = ("epoch", "step")


class CsvLogger(Logger):
    """Writes `metrics.csv`: one row a logged step or epoch, a column a key, empty where unknown.

    Each row is on the disk when `log` returns. A key seen for the first time adds a column.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "metrics.csv"
        self._columns = list(_FIRST_COLUMNS)
        self._count = len(self._rows())
        if self.path.exists():
            with open(self.path, encoding="utf-8", newline="") as file:
                self._columns = next(csv.reader(file), self._columns)

    def log(self, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        row = {"epoch": epoch, "step": step, **metrics}
        new = [key for key in row if key not in self._columns]
        if new or not self.path.exists():
            self._columns += new
            write_text(self.path, self._table(self._rows()))
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise UserError(f"{self.path}: could not be written ({error.strerror})") from error
        self._count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"columns": list(self._columns), "rows": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        kept = self._rows()[: state.get("rows", 0)]
        self._count = len(kept)
        self._columns = list(state.get("columns", _FIRST_COLUMNS))
        if self.path.exists():
            write_text(self.path, self._table(kept))

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _table(self, rows: Sequence[dict[str, Any]]) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
