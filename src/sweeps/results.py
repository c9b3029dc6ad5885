"""The results of a sweep: the table over its jobs, and the best of them."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from src.runs.grouping import REPETITION, Group
from src.runs.reading import Run, read_run
from src.runs.tables import (
    CLASSES_TITLE,
    GROUPS_TITLE,
    class_rows,
    duration,
    escaped,
    markdown_table,
    mean_and_spread,
    screen_table,
)
from src.sweeps.jobs import Job
from src.utils.console import percent
from src.utils.errors import UserError
from src.utils.files import write_text

_DEFAULT_MONITOR = "val/miou"


@dataclass(frozen=True)
class Result:
    """The result of a job."""

    job: Job
    run: Run  # its one score is the monitored value of the best weights; NaN if there is none
    monitor: str = _DEFAULT_MONITOR
    mode: str = "max"

    @classmethod
    def of(cls, job: Job) -> "Result":
        """Reads the job's directory."""
        try:
            run = read_run(job.path, str(job.number))
        except UserError:
            waiting = Run(job.path, str(job.number), "train", job.status)
            return cls(job, replace(waiting, scores={_DEFAULT_MONITOR: math.nan}))
        monitor = run.config.get("trainer.monitor", _DEFAULT_MONITOR)
        best = (job.summary.get("best") or {}).get(monitor, math.nan)
        pruned = run.status == "completed" and (run.reason or "").startswith("pruned")
        run = replace(run, scores={monitor: best}, status="pruned" if pruned else run.status)
        return cls(job, run, monitor, run.config.get("trainer.monitor_mode", "max"))

    @property
    def value(self) -> float:
        """The monitored value of the best weights, NaN if there is none."""
        return self.run.scores[self.monitor]

    @property
    def settings(self) -> dict[str, str]:
        """The overrides that set it apart, by key."""
        parts = (override.partition("=") for override in self.job.overrides)
        return {key.lstrip("+~"): value for key, _, value in parts}


class Results:
    """The results of all jobs of a sweep, by number."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.all = [Result.of(job) for job in jobs]
        known = [result for result in self.all if result.run.config]
        self.monitor = known[0].monitor if known else _DEFAULT_MONITOR
        self._sign = -1 if known and known[0].mode == "min" else 1
        self.keys = list(dict.fromkeys(key for r in self.all for key in r.settings))
        self.groups = self._grouped()

    @property
    def best(self) -> Result | None:
        """The best of those that ran to their end; None if there is none with a value."""
        ended = [r for r in self.all if r.run.status == "completed" and math.isfinite(r.value)]
        return max(ended, key=lambda r: self._sign * r.value, default=None)

    @property
    def failed(self) -> list[Result]:
        """Those that did not end well."""
        return [r for r in self.all if r.run.status not in ("completed", "pruned")]

    def _grouped(self) -> list[tuple[Result, Group]]:
        """Jobs that differ in seed and fold alone, best mean first, with the first of each."""
        members: dict[tuple, list[Result]] = {}
        for result in self.all:
            given = tuple((k, v) for k, v in result.settings.items() if k not in REPETITION)
            members.setdefault(given, []).append(result)

        def rank(found: list[Result]) -> float:
            mean = Group(0, tuple(r.run for r in found)).spread(self.monitor)[0]
            return math.inf if math.isnan(mean) else -self._sign * mean

        ordered = sorted(members.values(), key=rank)
        return [
            (found[0], Group(n, tuple(r.run for r in found))) for n, found in enumerate(ordered, 1)
        ]

    def group_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the groups: what sets them apart, mean and spread, jobs that count."""
        keys = [key for key in self.keys if key not in REPETITION]
        rows = [
            [
                str(group.number),
                *(_short(first.settings.get(key, "–")) for key in keys),
                mean_and_spread(group, self.monitor),
                f"{len(group.completed)}/{len(group.runs)}",
            ]
            for first, group in self.groups
        ]
        return ["group", *keys, self.monitor, "jobs"], rows

    def job_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the jobs."""
        rows = [
            [
                str(result.job.number),
                *(_short(result.settings.get(key, "–")) for key in self.keys),
                percent(result.value),
                str(result.run.best_epoch or "–"),
                duration(result.run.seconds),
                result.run.status,
            ]
            for result in self.all
        ]
        return ["job", *self.keys, self.monitor, "epoch", "time", "status"], rows

    @property
    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        repeated = len(self.groups) < len(self.all)
        groups = [(GROUPS_TITLE, *self.group_rows())] if repeated else []
        header, rows = class_rows([group for _, group in self.groups])
        if rows:
            groups.append((CLASSES_TITLE, header, rows))
        return [*groups, ("Jobs, percent", *self.job_rows())]

    def screen_tables(self) -> list[Table]:
        """The groups and their classes, if seeds or folds were repeated, and the jobs."""
        return [screen_table(title, header, rows) for title, header, rows in self._tables]

    def conclusion(self) -> str:
        """The best job and how to repeat it."""
        best = self.best
        if best is None:
            return "no job has a value"
        checkpoint = best.job.path / "checkpoints" / "best.ckpt"
        where = f"epoch {best.run.best_epoch}, {checkpoint}"
        return (
            f"best: job {best.job.number}, {self.monitor} {percent(best.value)} percent ({where})\n"
            f"again: {best.job.repeat_command()}"
        )

    def write(self, directory: Path) -> None:
        """Writes `sweep.csv` and `sweep.md`."""
        write_text(directory / "sweep.csv", self._csv())
        parts = [
            f"## {title}\n\n{markdown_table(header, rows)}\n"
            for title, header, rows in self._tables
        ]
        parts.append("\n\n".join(self.conclusion().split("\n")) + "\n")
        reasons = [
            f"* job {r.job.number}: {r.run.status}: {escaped(r.run.reason)}"
            for r in self.all
            if r.run.reason
        ]
        if reasons:
            parts.append("## Why jobs ended early\n\n" + "\n".join(reasons) + "\n")
        write_text(directory / "sweep.md", "\n".join(parts))

    def _csv(self) -> str:
        number = {run.name: group.number for _, group in self.groups for run in group.runs}
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        header = ["job", "status", "reason", self.monitor, "epoch", "seconds", "group", *self.keys]
        writer.writerow([*header, "command"])
        for result in self.all:
            run, settings = result.run, result.settings
            numbers = ["" if math.isnan(x) else x for x in (result.value, run.seconds)]
            row = [result.job.number, run.status, run.reason or "", numbers[0], run.best_epoch]
            row += [numbers[1], number[run.name], *(settings.get(key, "") for key in self.keys)]
            writer.writerow([*row, result.job.repeat_command()])
        return text.getvalue()


def _short(value: str) -> str:
    """A number that a search has drawn, in four digits."""
    try:
        return value if len(value) < 8 else f"{float(value):.4g}"
    except ValueError:
        return value
