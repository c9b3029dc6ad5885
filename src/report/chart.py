"""The groups of runs as a picture: every seed a dot, and their mean and spread. Written as PNG."""

from pathlib import Path
from typing import TYPE_CHECKING

from src.runs.grouping import Group, experiment, show
from src.runs.reading import SCORES
from src.runs.tables import Overview
from src.utils.console import SCORE_NAMES
from src.visualization.charts import BLUE, INK, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_GROUPS = 30  # the best; more have no room
MAX_KEYS = 3  # in the label of a group


def draw_groups(path: Path, overview: Overview, subtitle: str) -> None:
    """The four scores of every group, best mIoU on top: the runs, their mean ± standard deviation.

    Args:
        path: The PNG.
        overview: Of the runs; groups without a completed run are left out.
        subtitle: Below the heading.
    """
    groups = [group for group in overview.groups if group.spread(SCORES[0])[2]][:MAX_GROUPS]
    if len(groups) < len(overview.groups):
        subtitle += f" · {len(groups)} of {len(overview.groups)} groups"
    with figure(path, 12, 1.7 + 0.36 * max(len(groups), 2), "Scores by group", subtitle) as fig:
        axes = fig.subplots(1, len(SCORES), sharey=True)
        for ax, score in zip(axes, SCORES, strict=True):
            _scores(ax, groups, score)
        axes[0].set_yticks(range(len(groups)), [_label(g, overview) for g in groups], color=INK)


def _scores(ax: "Axes", groups: list[Group], score: str) -> None:
    for place, group in enumerate(groups):
        values = [100 * run.scores[score] for run in group.completed if score in run.scores]
        mean, deviation, count = group.spread(score)
        spread = 100 * deviation if count > 1 else None
        ax.errorbar(100 * mean, place, xerr=spread, fmt="|", ms=14, mew=2,
                    color=BLUE, elinewidth=5, alpha=0.45, zorder=2)  # fmt: skip
        ax.plot(values, [place] * len(values), "o", ms=4, color=INK, alpha=0.8, zorder=3)
    ax.set_title(f"{SCORE_NAMES[score]}, percent")
    ax.margins(x=0.08)
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _label(group: Group, overview: Overview) -> str:
    config = experiment(group.runs[0])
    shown = [d for d in overview.columns if d.key in config][:MAX_KEYS]
    parts = [f"{d.heading.rpartition('.')[2]}={show(config[d.key])}" for d in shown]
    return f"{group.number}: " + (", ".join(parts)[:70] or group.runs[0].name)
