"""Where logged scalars go: a CSV file, Weights & Biases."""

import csv
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from src.utils.errors import UserError, told_line
from src.utils.files import write_text
from src.utils.sheets import Case

log = logging.getLogger(__name__)

_FIRST_COLUMNS = ("epoch", "step")


class Logger(Protocol):
    """Receives scalars by log key (`train/loss`, `val/miou`, `lr`)."""

    def log(self, metrics: dict[str, float], epoch: int, step: int) -> None:
        """Takes the scalars of one step (from 1) of one epoch (from 1)."""

    def log_images(self, paths: Sequence[Path]) -> None:
        """Takes the finished figures of a run, PNG files."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Takes a table: texts and numbers, NaN where a number is not defined."""

    def log_masks(self, name: str, cases: Sequence[Case], labels: Mapping[int, str]) -> None:
        """Takes images with their labels and predictions, and what the ids in these mean."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs, as JSON can hold it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Forgets what was logged after `state_dict` gave this; an empty one is the beginning."""

    def close(self, failed: bool) -> None:
        """Writes out what is pending; called at a run's end, whatever ended it."""


class CsvLogger:
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

    def log(self, metrics: dict[str, float], epoch: int, step: int) -> None:
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

    def log_images(self, paths: Sequence[Path]) -> None:
        """They lie in the run directory already, as what tables and masks come from does."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See `log_images`."""

    def log_masks(self, name: str, cases: Sequence[Case], labels: Mapping[int, str]) -> None:
        """See `log_images`."""

    def state_dict(self) -> dict[str, Any]:
        return {"columns": list(self._columns), "rows": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept = self._rows()[: state.get("rows", 0)]
        self._count = len(kept)
        self._columns = list(state.get("columns", _FIRST_COLUMNS))
        if self.path.exists():
            write_text(self.path, self._table(kept))

    def close(self, failed: bool) -> None:
        """Nothing is pending: rows are written as they come."""

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


class WandbLogger:
    """Logs to Weights & Biases; never stops or stalls a run.

    What fails (no network, no login, no package, its process killed) becomes one warning, and the
    run goes on without it. `WANDB_MODE` in the environment is obeyed.

    Args:
        output_dir: The run directory; the offline files go below it.
        project, group, name, tags, entity: As in `wandb.init`.
        mode: "online", "offline" or "disabled".
        run_config: The resolved config of the run.
        resume_id: The id of the W&B run that a resumed run goes on with; None makes a new one.
        timeout: Seconds to wait for the server.
    """

    def __init__(
        self,
        output_dir: str | Path,
        project: str,
        mode: str = "online",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        run_config: dict[str, Any] | None = None,
        resume_id: str | None = None,
        timeout: float = 20,
    ) -> None:
        self._run = None
        try:
            import wandb

            self._run = wandb.init(
                dir=str(output_dir),
                project=project,
                entity=entity,
                group=group,
                name=name,
                tags=list(tags),
                mode=os.environ.get("WANDB_MODE", mode),
                id=resume_id,
                resume="allow" if resume_id else None,
                config={**(run_config or {}), "run_directory": str(output_dir)},
                settings=wandb.Settings(init_timeout=timeout, silent=True),
            )
        except Exception as error:  # wandb raises many kinds; none may reach the run
            log.warning(
                "W&B is off for this run (%s); metrics.csv has everything. Repair: "
                "`wandb login`, or logger.wandb.mode=offline and `wandb sync` later",
                told_line(error) or type(error).__name__,
            )

    @property
    def run_id(self) -> str | None:
        """The id of the W&B run, None while it is off."""
        return self._run.id if self._run is not None else None

    def log(self, metrics: dict[str, float], epoch: int, step: int) -> None:
        self._tell(lambda run: run.log({"epoch": epoch, **metrics}, step=step))

    def log_images(self, paths: Sequence[Path]) -> None:
        def send(run: Any) -> None:
            import wandb

            images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in paths}
            run.log(images, commit=False)

        self._tell(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            # NaN, the one value unequal to itself, is no JSON
            data = [[cell if cell == cell else None for cell in row] for row in rows]
            run.log({name: wandb.Table(list(columns), data)}, commit=False)

        self._tell(send)

    def log_masks(self, name: str, cases: Sequence[Case], labels: Mapping[int, str]) -> None:
        def send(run: Any) -> None:
            import wandb

            images = {}  # a key each: W&B wants one size in a list
            for number, case in enumerate(cases, 1):
                masks = {
                    "prediction": {"mask_data": case.pred, "class_labels": dict(labels)},
                    "label": {"mask_data": case.label, "class_labels": dict(labels)},
                }
                image = wandb.Image(case.image, masks=masks, caption=case.name)
                images[f"{name}/{number}"] = image
            run.log(images, commit=False)

        self._tell(send)

    def _tell(self, send: Callable[[Any], None]) -> None:
        """Does something with the W&B run, if there is one; it is given up once that fails."""
        if self._run is None:
            return
        try:
            send(self._run)
        except Exception as error:  # wandb raises many kinds; none may reach the run
            self._run = None
            log.warning(
                "W&B is off from here on (%s); metrics.csv goes on. What was logged before is in "
                "the run directory's wandb folder: `wandb sync` sends it",
                told_line(error) or type(error).__name__,
            )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """W&B keeps its own rows: the repeated steps give the same values, and it drops them."""

    def close(self, failed: bool) -> None:
        self._tell(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
