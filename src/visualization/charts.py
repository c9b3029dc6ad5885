"""Charts of a run: loss and scores over time, IoU by class, confusion matrix. Written as PNG.

Matplotlib is imported when the first chart is drawn, without pyplot: no display, no global state.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.utils.console import SCORE_NAMES
from src.utils.curves import Curve
from src.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
log = logging.getLogger(__name__)

DPI = 150

INK, FAINT, GRID = "#1f2933", "#66727f", "#e3e7eb"

BLUE, ORANGE, GREEN, PINK = "#3567b5", "#dd7a2b", "#2f9268", "#b2539a"

_CHINESE = ("Noto Sans CJK SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "SimHei")


_STYLE = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names may hold dollars
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b4bcc5",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
}


def in_percent(value: float) -> str:
    """A fraction as "54.3 %"; "–" for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def draw_curves(
    path: Path, curves: Mapping[str, Curve], subtitle: str, best_epoch: float | None = None
) -> None:
    """Training loss and learning rate over steps, validation scores over epochs.

    Args:
        path: The PNG.
        curves: By log key; `train/loss`, `lr`, the four `val/` scores and `val/ema/miou` are drawn.
        subtitle: Below the heading: run, epoch, score.
        best_epoch: Is marked.
    """
    with figure(path, 11, 5.2, "Training and validation", subtitle) as fig:
        _curves(fig, curves, best_epoch)


def _curves(fig: "Figure", curves: Mapping[str, Curve], best_epoch: float | None) -> None:
    grid = fig.add_gridspec(2, 2, height_ratios=(2, 1), width_ratios=(1, 1))
    loss = fig.add_subplot(grid[0, 0], title="Training loss")
    rate = fig.add_subplot(grid[1, 0], title="Learning rate", xlabel="step", sharex=loss)
    scores = fig.add_subplot(grid[:, 1], title="Validation, percent", xlabel="epoch")
    loss.tick_params(labelbottom=False)
    _over_steps(loss, curves.get("train/loss"), BLUE, smooth=True)
    _over_steps(rate, curves.get("lr"), FAINT)
    rate.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    rate.yaxis.set_major_formatter("{x:g}")
    drawn = {name: curves[f"val/{name}"] for name in SCORE_NAMES if f"val/{name}" in curves}
    for (name, curve), color in zip(drawn.items(), (ORANGE, GREEN, BLUE, PINK), strict=False):
        marker = "o" if len(curve.values) <= 30 else ""
        line = {"color": color, "lw": 2.2 if name == "miou" else 1.4, "marker": marker, "ms": 4}
        scores.plot(curve.epochs, 100 * curve.values, label=SCORE_NAMES[name], **line)
    if not drawn:
        _say(scores, "no validation")
        return
    if averaged := curves.get("val/ema/miou"):
        line = {"color": ORANGE, "lw": 2.2, "ls": "--", "label": "EMA mIoU"}
        scores.plot(averaged.epochs, 100 * averaged.values, **line)
    scores.set_ylim(bottom=max(0, scores.get_ylim()[0]), top=min(100, scores.get_ylim()[1]))
    scores.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if best_epoch is not None:
        scores.axvline(best_epoch, color=FAINT, lw=1, ls=(0, (2, 3)), label=f"best: {best_epoch}")
    scores.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1), handlelength=1.4,
                  columnspacing=1.2, borderpad=0, fontsize=9)  # fmt: skip
    scores.set_title("Validation, percent", pad=42)


def draw_class_iou(
    path: Path, iou: Mapping[str, float], palette: np.ndarray, subtitle: str
) -> None:
    """Bars of IoU by class, best first, beside the class colours; "–" for NaN.

    Args:
        path: The PNG.
        iou: Fractions by class name, in the order of the ids.
        palette: C×3 uint8 RGB.
        subtitle: Below the heading.
    """
    names, values = list(iou), np.array(list(iou.values()), float)
    order = sorted(range(len(names)), key=lambda i: (math.isnan(values[i]), -values[i], i))
    mean = 100 * np.nanmean(values) if np.isfinite(values).any() else None
    columns = math.ceil(len(names) / 50)
    rows = math.ceil(len(names) / columns)
    size = 7 * columns, 1.5 + 0.27 * max(rows, 4)
    with figure(path, *size, "IoU by class", subtitle) as fig:
        for column, ax in enumerate(fig.subplots(1, columns, squeeze=False)[0]):
            part = order[column * rows : (column + 1) * rows]
            _bars(ax, [names[i] for i in part], values[part], palette[part], rows, mean)


def _bars(
    ax: "Axes",
    names: Sequence[str],
    values: np.ndarray,
    colors: np.ndarray,
    rows: int,
    mean: float | None,
) -> None:
    shown = 100 * np.nan_to_num(values)
    places = range(len(names))
    ax.barh(places, shown, height=0.68, color=BLUE)
    # the classes' colours, in a narrow lane left of the axis
    ax.scatter([-0.022] * len(names), places, s=58, marker="s", c=colors / 255, linewidths=0.6,
               edgecolors="#9aa5b1", transform=ax.get_yaxis_transform(), clip_on=False)  # fmt: skip
    for place, value in enumerate(values):
        text = "–" if math.isnan(value) else f"{100 * value:.1f}"
        back = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # over the mean's line
        ax.text(shown[place] + 1.2, place, text, va="center", fontsize=9, bbox=back)
    if mean is not None:
        ax.axvline(mean, color=ORANGE, lw=1.4, zorder=0.9)
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate(f"mean {mean:.1f}", (mean, 1), (0, 3), ha="center", fontsize=9, color=ORANGE,
                    **where)  # fmt: skip
    ax.set(xlim=(0, 108), ylim=(rows - 0.4, -0.6), xlabel="IoU, percent")
    ax.set_xticks(range(0, 101, 20))
    ax.set_yticks(places, names, color=INK)
    ax.tick_params(axis="y", length=0, pad=16)
    ax.grid(axis="y", visible=False)


def draw_confusion(
    path: Path, matrix: np.ndarray, class_names: Sequence[str], subtitle: str
) -> None:
    """The confusion matrix in percent of each row, a target class; "–" for one without pixels.

    Args:
        path: The PNG.
        matrix: C×C counts, rows are targets, columns predictions.
        class_names: C names.
        subtitle: Below the heading.
    """
    side = min(0.42 * len(matrix), 18) + (1.4 if len(matrix) < 8 else 0)
    with figure(path, side + 3.2, side + 2.6, "Confusion matrix", subtitle) as fig:
        ax = fig.add_subplot(xlabel="prediction", ylabel="target")
        _matrix(ax, 100 * normalize_rows(matrix), class_names)
        bar = fig.colorbar(ax.images[0], ax=ax, shrink=0.5, aspect=28, pad=0.02)
        bar.set_label("percent of the target's pixels")
        bar.outline.set_visible(False)


def _matrix(ax: "Axes", share: np.ndarray, class_names: Sequence[str]) -> None:
    count = len(share)
    size = 10 if count <= 12 else 8.5 if count <= 60 else 5
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_facecolor("#f0f2f4")  # of rows without pixels
    ax.imshow(np.ma.masked_invalid(share), cmap="Blues", vmin=0, vmax=100)
    ax.set_xticks(range(count), class_names, rotation=90, fontsize=size, color=INK)
    ax.set_yticks(range(count), class_names, fontsize=size, color=INK)
    ax.tick_params(length=0)
    if count > 40:  # no room for numbers
        return
    for row, column in np.ndindex(share.shape):
        value = share[row, column]
        if value < 0.5:
            continue
        color = "#9aa5b1" if math.isnan(value) else "white" if value > 55 else INK
        text = "–" if math.isnan(value) else f"{value:.0f}"
        ax.text(column, row, text, ha="center", va="center_baseline", fontsize=size, color=color)
    for edge in np.arange(count + 1) - 0.5:
        ax.axhline(edge, color="white", lw=0.8)
        ax.axvline(edge, color="white", lw=0.8)


def normalize_rows(matrix: np.ndarray) -> np.ndarray:
    """Counts as fractions of their row; NaN in rows without counts."""
    total = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)


def _over_steps(ax: "Axes", curve: Curve | None, color: str, smooth: bool = False) -> None:
    if curve is None:
        _say(ax, "not logged")
        return
    values = curve.values
    if smooth and len(values) > 80:  # the trend over the single values
        ax.plot(curve.steps, values, color=color, lw=0.8, alpha=0.35)
        window = len(values) // 25
        values = np.convolve(values, np.ones(window) / window, mode="valid")
        ax.plot(curve.steps[window // 2 :][: len(values)], values, color=color, lw=1.8)
    else:
        ax.plot(curve.steps, values, color=color, lw=1.8, marker="o" if len(values) < 3 else "")


def _say(ax: "Axes", text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT)
    ax.tick_params(length=0, labelleft=False, labelbottom=False)
    ax.grid(visible=False)


@contextmanager
def figure(
    path: Path, width: float, height: float, heading: str, subtitle: str
) -> Iterator["Figure"]:
    """A figure of so many inches with two lines of title; written to `path` on leaving."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "font.family": font_families()}):
        fig = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        fig.set_layout_engine("constrained", rect=(0.01, 0.01, 0.98, 1 - 0.72 / height))
        fig.text(0.15 / width, 1 - 0.14 / height, heading, va="top", fontsize=14, weight="bold")
        fig.text(0.15 / width, 1 - 0.44 / height, subtitle, va="top", fontsize=10, color=FAINT)
        yield fig
        save_figure(fig, path)


def save_figure(fig: "Figure", path: Path, **options: Any) -> None:
    """Writes the PNG; characters that no font has are one line of log, not a warning each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atomic_write(path, lambda temporary: fig.savefig(temporary, **options))
    if any("missing from font" in str(warning.message) for warning in caught):
        log.warning("%s: no font here has all characters of it; install one of %s",
                    path.name, ", ".join(_CHINESE[:2]))  # fmt: skip


def font_families() -> list[str]:
    """Matplotlib's own font, then one for Chinese class names if the machine has any."""
    from matplotlib import font_manager

    installed = font_manager.get_font_names()
    return ["DejaVu Sans", *[name for name in _CHINESE if name in installed][:1]]
