"""The report's tables: on the screen, as CSV and as Markdown."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from src.runs.grouping import Difference, Group, differences, experiment, grouped, show
from src.runs.reading import SCORES, Run
from src.utils.console import SCORE_NAMES, percent

MAX_COLUMNS = 8  # of differing keys, or of groups, in the tables for people; the CSV has all
GROUPS_TITLE = "Mean ± standard deviation over seeds and folds, percent"
CLASSES_TITLE = "IoU by class: mean ± standard deviation over seeds and folds, percent"


@dataclass(frozen=True)
class Overview:
    """The runs of a report, grouped, and what distinguishes them."""

    trained: list[Run]
    evaluated: list[Run]
    groups: list[Group]
    differing: list[Difference]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Overview":
        trained = [run for run in runs if run.command == "train"]
        evaluated = [run for run in runs if run.command == "eval"]
        return cls(trained, evaluated, grouped(trained), differences(trained))

    @property
    def columns(self) -> list[Difference]:
        """The differing keys that have a column in the tables for people."""
        return self.differing[:MAX_COLUMNS]


def mean_and_spread(group: Group, score: str) -> str:
    """ "54.31 ± 0.42" in percent; without the spread if there is a single run, "–" for none."""
    return spread_text(*group.spread(score))


def spread_text(mean: float, deviation: float, count: int) -> str:
    """Mean and deviation of so many values, see `mean_and_spread`."""
    return percent(mean) + (f" ± {percent(deviation)}" if count > 1 else "")


def class_rows(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the IoU of each class, a column for each of the first groups.

    There are no rows if no group has the classes of two completed runs, so that nothing spreads.
    """
    shown = [g for g in groups if any(run.class_iou for run in g.completed)][:MAX_COLUMNS]
    if all(len(group.completed) < 2 for group in shown):
        return [], []
    names = dict.fromkeys(name for g in shown for run in g.completed for name in run.class_iou)
    rows = [[name, *(spread_text(*g.class_spread(name)) for g in shown)] for name in names]
    return ["class", *(f"group {group.number}" for group in shown)], rows


def epochs(run: Run) -> str:
    """How far a run has come, as "7/20"."""
    done = "–" if run.last_epoch is None else str(run.last_epoch)
    return done if run.max_epochs is None else f"{done}/{run.max_epochs}"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss; "–" for NaN."""
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def weights(run: Run) -> str:
    """The checkpoint of an evaluation, by its last folders."""
    return "/".join(str(run.config.get("ckpt_path", "–")).split("/")[-3:])


def group_rows(overview: Overview) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the groups: runs, scores in percent, what sets them apart."""
    scores = [SCORE_NAMES[s] for s in SCORES]
    header = ["group", "runs", *scores, *(d.heading for d in overview.columns)]
    rows = []
    for group in overview.groups:
        config = experiment(group.runs[0])
        rows.append(
            [
                str(group.number),
                f"{len(group.completed)}/{len(group.runs)}",
                *(mean_and_spread(group, score) for score in SCORES),
                *(show(config[d.key]) if d.key in config else "–" for d in overview.columns),
            ]
        )
    return header, rows


def run_rows(overview: Overview) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the training runs, in the order of their groups."""
    folds = has_folds(overview.trained)
    header = ["run", "status", "seed", *["fold"] * folds, "epochs", "best"]
    header += [*(SCORE_NAMES[s] for s in SCORES), "time"]
    rows = []
    for group in overview.groups:
        for run in group.runs:
            best = "–" if run.best_epoch is None else str(run.best_epoch)
            part = [of_config(run, "seed"), *[of_config(run, "dataset.fold")] * folds]
            scores = [percent(run.scores[score]) for score in SCORES]
            time = duration(run.seconds)
            rows.append([run.name, run.status, *part, epochs(run), best, *scores, time])
    return header, rows


def has_folds(runs: Sequence[Run]) -> bool:
    """Whether a run holds out a fold."""
    return any(run.config.get("dataset.fold") is not None for run in runs)


def of_config(run: Run, key: str) -> str:
    """A value of a run's config; "–" if there is none."""
    value = run.config.get(key)
    return "–" if value is None else show(value)


def evaluation_rows(overview: Overview) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the evaluations."""
    header = ["evaluation", "status", "weights", "split", "images", *SCORE_NAMES.values()]
    rows = []
    for run in overview.evaluated:
        about = [str(run.protocol.get(key, "–")) for key in ("split", "images")]
        scores = [percent(run.scores[score]) for score in SCORES]
        rows.append([run.name, run.status, weights(run), *about, *scores])
    return header, rows


def screen_tables(overview: Overview) -> list[Table]:
    """What is printed: the groups if something was repeated, the runs, the evaluations."""
    tables = []
    if len(overview.groups) < len(overview.trained):
        tables.append(screen_table(GROUPS_TITLE, *group_rows(overview)))
    for title, (header, rows) in (
        (CLASSES_TITLE, class_rows(overview.groups)),
        ("Runs, percent", run_rows(overview)),
        ("Evaluations, percent", evaluation_rows(overview)),
    ):
        if rows:
            tables.append(screen_table(title, header, rows))
    return tables


def to_csv(overview: Overview) -> str:
    """All runs and evaluations, scores as fractions, with every key that differs."""
    keys = [key for d in overview.differing for key in (d.key, *d.along)]
    number = {run.name: group.number for group in overview.groups for run in group.runs}
    header = ["run", "command", "status", "reason", "group", "seed", "fold", "last_epoch",
              "max_epochs", "best_epoch", *SCORES, "seconds", "device", "git_commit",
              "tags"]  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*header, *keys])
    for run in [*overview.trained, *overview.evaluated]:
        config, reason = experiment(run), run.reason or ""
        scores = ["" if math.isnan(run.scores[s]) else run.scores[s] for s in SCORES]
        seconds = "" if math.isnan(run.seconds) else run.seconds
        row: list[Any] = [run.name, run.command, run.status, reason, number.get(run.name, "")]
        row += [run.config.get("seed", ""), run.config.get("dataset.fold")]
        row += [run.last_epoch, run.max_epochs, run.best_epoch]
        row += [*scores, seconds, run.device, run.git_commit]
        row.append(" ".join(map(str, run.config.get("tags") or [])))
        writer.writerow([*row, *(show(config[key]) if key in config else "" for key in keys)])
    return text.getvalue()


def to_markdown(overview: Overview) -> str:
    """The tables for people, for a README or an issue."""
    parts = []
    for title, (header, rows) in (
        (GROUPS_TITLE, group_rows(overview)),
        (CLASSES_TITLE, class_rows(overview.groups)),
        ("Runs, percent", run_rows(overview)),
        ("Evaluations, percent", evaluation_rows(overview)),
    ):
        if rows:
            parts.append(f"## {title}\n\n{markdown_table(header, rows)}\n")
    failed = [
        f"* `{run.name}`: {run.status}: {escaped(run.reason)}"
        for run in [*overview.trained, *overview.evaluated]
        if run.reason and run.status != "completed"
    ]
    if failed:
        lines = "\n".join(failed)
        parts.append(f"## Runs that did not end well\n\n{lines}\n")
    return "\n".join(parts)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)


def screen_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the screen; columns of numbers are aligned at their right."""
    table = Table(title=title, title_justify="left", min_width=len(title))
    for index, name in enumerate(header):
        numeric = all(row[index][:1].isdigit() or row[index] == "–" for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def escaped(cell: str) -> str:
    """A text that does not end a cell of a Markdown table."""
    return cell.replace("|", "\\|")
