"""The report as one HTML page that needs nothing beside itself."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from src.runs.grouping import Group, experiment, show
from src.runs.names import run_name
from src.runs.reading import SCORES, Run
from src.runs.tables import (
    Overview,
    class_rows,
    duration,
    epochs,
    has_folds,
    mean_and_spread,
    of_config,
    weights,
)
from src.utils.console import SCORE_NAMES, percent
from src.utils.curves import Curve

COLORS = 8  # --c0 … --c7 in page.css; further runs are dashed
MAX_POINTS = 400  # of one curve
_FIGURES = {
    "curves": "curves",
    "class_iou": "classes",
    "confusion_matrix": "confusion",
    "predictions": "predictions",
    "worst": "worst",
    "best": "best",
}


def page(overview: Overview, root: Path, base: Path) -> str:
    """The whole page.

    Args:
        overview: What is shown.
        root: Folder of the runs, for the title.
        base: Folder that the page will lie in; links are relative to it.
    """
    here = Path(__file__).parent
    title = f"Runs in {escape(str(root))}"
    color = _colors(overview.groups)
    body = "".join(
        [
            f"<header><h1>{title}</h1><p>{_lead(overview)}</p></header><main>",
            _groups(overview, color),
            _CHART if any(run.curves for run in overview.trained) else "",
            _runs(overview, color, base),
            _class_spread(overview.groups),
            _classes(overview.trained, color),
            _evaluations(overview.evaluated, base),
            _differing(overview, color),
            "</main>",
        ]
    )
    data = json.dumps(_data(overview, color), separators=(",", ":")).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{(here / 'page.css').read_text(encoding='utf-8')}</style>"
        f'</head><body>{body}<script type="application/json" id="data">{data}</script>'
        f"<script>{(here / 'page.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


_CHART = """<section id="curves"><h2>Curves</h2>
<div class="controls"><label>value <select id="key"></select></label>
<label>over <select id="axis"><option>epoch</option><option>step</option></select></label>
<label>smoothing <input id="smooth" type="range" min="0" max="30" value="0"></label>
<span class="buttons"><button id="all">all</button><button id="none">none</button></span></div>
<div class="chart"><div id="plot"></div><ul id="legend"></ul></div><div id="tip" hidden></div>
</section>"""


def _lead(overview: Overview) -> str:
    statuses = [run.status for run in overview.trained]
    parts = [_badge(status, f"{statuses.count(status)} {status}") for status in _unique(statuses)]
    if overview.evaluated:
        parts.append(f"evaluations: {len(overview.evaluated)}")
    values = [
        run.scores["miou"] for run in overview.trained if run.scores["miou"] == run.scores["miou"]
    ]
    if values:
        parts.append(f"best mIoU {percent(max(values))} %")
    parts.append(f"written {datetime.now():%Y-%m-%d %H:%M}")
    return " ".join(f"<span>{part}</span>" for part in parts)


def _groups(overview: Overview, color: dict[str, tuple[int, int]]) -> str:
    if len(overview.groups) < 2 and len(overview.trained) < 2:
        return ""
    best = {s: max((g.spread(s)[0] for g in overview.groups), key=_nan_last) for s in SCORES}
    rows = []
    for group in overview.groups:
        cells = [_cell(_dot(color[group.runs[0].name]) + str(group.number), group.number)]
        cells.append(_cell(f"{len(group.completed)} of {len(group.runs)}", len(group.completed)))
        for score in SCORES:
            mean = group.spread(score)[0]
            text = escape(mean_and_spread(group, score))
            cells.append(_score(f"<b>{text}</b>" if mean == best[score] else text, mean))
        config = experiment(group.runs[0])
        cells += [_value(config, d.key) for d in overview.columns]
        rows.append(cells)
    heads = ["", "runs", *(SCORE_NAMES[s] for s in SCORES), *(d.heading for d in overview.columns)]
    note = "mean ± standard deviation over seeds and folds, of the completed runs; percent"
    return _section("groups", "Experiments", note, _table(heads, rows))


def _runs(overview: Overview, color: dict[str, tuple[int, int]], base: Path) -> str:
    repetition = ["seed", *["dataset.fold"] * has_folds(overview.trained)]
    rows = []
    for group in overview.groups:
        for run in group.runs:
            name = _dot(color[run.name]) + _name(run) + _more(run, base)
            best = "–" if run.best_epoch is None else str(run.best_epoch)
            cells = [
                _cell(name, text=run.name, kind="name"),
                _cell(_badge(run.status), text=run.status),
                *(_cell(of_config(run, key), run.config.get(key)) for key in repetition),
                _cell(escape(epochs(run)), run.last_epoch),
                _cell(best, run.best_epoch),
                *(_score(percent(run.scores[s]), run.scores[s]) for s in SCORES),
                _cell(duration(run.seconds), run.seconds),
                *(_value(experiment(run), d.key) for d in overview.columns),
            ]
            rows.append(cells)
    heads = ["run", "status", *(key.removeprefix("dataset.") for key in repetition)]
    heads += ["epochs", "best", *(SCORE_NAMES[s] for s in SCORES), "time"]
    heads += [d.heading for d in overview.columns]
    find = '<input id="filter" type="search" placeholder="filter runs" aria-label="filter runs">'
    note = "scores of each run's best weights, percent; click a heading to sort"
    return _section("runs", "Runs", note, find + _table(heads, rows)) if rows else ""


def _class_spread(groups: Sequence[Group]) -> str:
    header, rows = class_rows(groups)
    if not rows:
        return ""
    cells = [[_cell(escape(cell)) for cell in row] for row in rows]
    note = "mean ± standard deviation over seeds and folds, of the completed runs; percent"
    return _section("class-spread", "IoU by class and experiment", note, _table(header, cells))


def _classes(runs: Sequence[Run], color: dict[str, tuple[int, int]]) -> str:
    sets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.class_iou:
            sets.setdefault(tuple(run.class_iou), []).append(run)
    tables = []
    for names, members in sets.items():
        members.sort(key=lambda run: _nan_last(run.scores["miou"]), reverse=True)
        rows = []
        for run in members:
            name = _dot(color[run.name]) + _name(run)
            cells = [_cell(name, text=run.name, kind="name")]
            for value in run.class_iou.values():
                shade = "" if math.isnan(value) else f' style="--a:{55 * value:.0f}%"'
                cells.append(_cell(_short(value), value, kind="heat", style=shade))
            rows.append(cells)
        tables.append(_table(["run", *names], rows, kind="classes"))
    note = "of the best weights, percent; – where a class does not occur"
    return _section("classes", "IoU by class", note, "".join(tables)) if tables else ""


def _evaluations(runs: Sequence[Run], base: Path) -> str:
    rows = []
    for run in runs:
        cells = [_cell(_name(run) + _more(run, base), text=run.name, kind="name")]
        cells += [_cell(_badge(run.status), text=run.status), _cell(escape(weights(run)))]
        cells += [_cell(escape(str(run.protocol.get(k, "–")))) for k in ("split", "images")]
        cells += [_score(percent(run.scores[s]), run.scores[s]) for s in SCORES]
        rows.append(cells)
    heads = ["run", "status", "weights", "split", "images", *(SCORE_NAMES[s] for s in SCORES)]
    return _section("evaluations", "Evaluations", "percent", _table(heads, rows)) if rows else ""


def _differing(overview: Overview, color: dict[str, tuple[int, int]]) -> str:
    if not overview.differing:
        return ""
    configs = [experiment(group.runs[0]) for group in overview.groups]
    heads = ["key", *(f"{group.number}" for group in overview.groups)]

    def rows(keys: Iterable[str]) -> list[list[str]]:
        return [[_cell(escape(k)), *(_value(config, k) for config in configs)] for k in keys]

    html = _table(heads, rows(d.key for d in overview.differing), kind="keys")
    along = [key for d in overview.differing for key in d.along]
    if along:
        summary = f"<summary>{len(along)} more that vary along with these</summary>"
        html += f"<details>{summary}{_table(heads, rows(along), kind='keys')}</details>"
    note = "a column for each experiment of the first table"
    return _section("differences", "Differing config keys", note, html)


def _data(overview: Overview, color: dict[str, tuple[int, int]]) -> dict[str, Any]:
    runs = []
    for group in overview.groups:
        for run in group.runs:
            if run.curves:
                number, dash = color[run.name]
                curves = {key: _points(curve) for key, curve in run.curves.items()}
                names = {
                    "name": run.name,
                    "short": run_name(run.path),
                    "about": _about(run, overview),
                }
                runs.append({**names, "color": number, "dash": dash, "curves": curves})
    return {"runs": runs}


def _about(run: Run, overview: Overview) -> str:
    """A short description of what distinguishes a run, for the legend."""
    config = experiment(run)
    keys = [d.key for d in overview.columns if d.key in config][:4] + ["seed"]
    keys += ["dataset.fold"] * (config.get("dataset.fold") is not None)
    words = {key.removesuffix("._target_").rpartition(".")[2]: config.get(key) for key in keys}
    return "  ".join(f"{word}={show(value)}" for word, value in words.items())


def _points(curve: Curve) -> list[list[float | None]]:
    """Epochs, steps and values, thinned, as JSON can hold them."""
    chosen = np.unique(np.linspace(0, len(curve.values) - 1, MAX_POINTS).round().astype(int))
    values = [float(f"{v:.5g}") if math.isfinite(v) else None for v in curve.values[chosen]]
    return [curve.epochs[chosen].tolist(), curve.steps[chosen].tolist(), values]


def _colors(groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    """Colour and dash of each run: one a group where seeds are repeated, else one a run."""
    by_group = 1 < len(groups) < sum(len(group.runs) for group in groups)
    chosen: dict[str, tuple[int, int]] = {}
    for group in groups:
        for run in group.runs:
            index = group.number - 1 if by_group else len(chosen)
            chosen[run.name] = index % COLORS, index // COLORS % 4
    return chosen


def _section(name: str, heading: str, note: str, content: str) -> str:
    heading = f"<h2>{heading} <small>{note}</small></h2>"
    return f'<section id="{name}">{heading}{content}</section>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th><button>{escape(name)}</button></th>" for name in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll {kind}">{table}</div>'


def _cell(
    html: str, number: float | None = None, text: str = "", kind: str = "", style: str = ""
) -> str:
    """A cell with what it is sorted by: a number, else a text."""
    if number is not None and math.isfinite(number):
        kind, key = f"{kind} number", f' data-v="{number:.6g}"'
    else:
        key = f' data-t="{escape(text)}"' if text else ""
    return f'<td class="{kind.strip()}"{key}{style}>{html}</td>'


def _score(html: str, value: float) -> str:
    return _cell(html, value, kind="number")


def _value(config: dict[str, Any], key: str) -> str:
    text = show(config[key]) if key in config else "–"
    value = config.get(key)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return _cell(f'<span class="value" title="{escape(text)}">{escape(text)}</span>', number)


def _name(run: Run) -> str:
    name = run_name(run.path)
    folder = run.name.removesuffix(name)
    return f'<span class="run"><i>{escape(folder)}</i>{escape(name)}</span>'


def _more(run: Run, base: Path) -> str:
    """Below a run's name: why it ended, links to its figures and to the trackers that have it."""
    reason = f'<div class="more">{escape(run.reason)}</div>' if run.reason else ""
    found = {path.stem: path for path in run.figures}
    links = []
    for stem, text in _FIGURES.items():
        if stem in found:
            links.append(_link(found[stem], base, text))
    for name, (place, url) in run.trackers.items():
        if url and url.startswith(("http://", "https://")):
            links.append(f'<a href="{escape(url)}">{escape(name)}</a>')
        elif (run.path / place).is_dir():
            links.append(_link(run.path / place, base, name))
        else:
            links.append(escape(f"{name} {place}"))
    return reason + (f'<div class="more">{" ".join(links)}</div>' if links else "")


def _link(path: Path, base: Path, text: str) -> str:
    address = quote(Path(os.path.relpath(path, base)).as_posix())
    return f'<a href="{address}">{escape(text)}</a>'


def _badge(status: str, text: str = "") -> str:
    return f'<b class="status {escape(status)}">{escape(text or status)}</b>'


def _dot(color: tuple[int, int]) -> str:
    return f'<span class="dot" style="background:var(--c{color[0]})"></span>'


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _nan_last(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))
