"""Charts of a run: what they show, read back from the figure and from the PNG."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from src.runs.names import run_name, weights_name
from src.utils.curves import Curve, read_curves
from src.utils.palette import voc_palette
from src.visualization import charts as figures
from src.visualization.charts import (
    draw_class_iou,
    draw_confusion,
    draw_curves,
    in_percent,
    normalize_rows,
)

NAN = float("nan")


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def curve(values):
    count = np.arange(1.0, len(values) + 1)
    return Curve(count, 10 * count, np.array(values, float))


def test_curves_are_read_key_by_key_and_a_cut_off_line_is_no_harm(tmp_path):
    lines = "epoch,step,train/loss,val/miou\n1,5,2.5,\n1,10,,0.25\n2,20,x,nan\n2,2"
    (tmp_path / "metrics.csv").write_text(lines)
    curves = read_curves(tmp_path / "metrics.csv")
    assert set(curves) == {"train/loss", "val/miou"}
    assert curves["train/loss"].steps.tolist() == [5] and curves["train/loss"].values[0] == 2.5
    assert curves["val/miou"].epochs.tolist() == [1, 2]
    assert curves["val/miou"].values[0] == 0.25 and np.isnan(curves["val/miou"].values[1])


def test_bars_are_as_long_as_the_iou_and_a_class_that_does_not_occur_has_a_dash(tmp_path, drawn):
    iou = {"ground": 0.9, "square": 0.4, "disc": NAN}
    draw_class_iou(tmp_path / "a.png", iou, voc_palette(3), "run · 65.0 %")
    assert set(texts(drawn[0])) == {"90.0", "40.0", "–", "mean 65.0"}
    pixels = np.array(Image.open(tmp_path / "a.png").convert("RGB"))
    blue = (pixels == (0x35, 0x67, 0xB5)).all(axis=2).sum(axis=1)  # of each line of pixels
    lengths = sorted({int(count) for count in blue if count > 100})
    shortest, longest = lengths[0], lengths[-1]
    assert shortest / longest == pytest.approx(4 / 9, abs=0.01)


def test_the_bars_of_many_classes_stand_in_columns(tmp_path, drawn):
    iou = {f"class {i}": i / 120 for i in range(120)}
    draw_class_iou(tmp_path / "a.png", iou, voc_palette(120), "")
    assert len(drawn[0].axes) == 3
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()][0] == "class 119"


def test_rows_of_the_confusion_matrix_are_shares_and_an_absent_target_is_dashes(tmp_path, drawn):
    matrix = np.array([[3, 1], [0, 0]])
    assert normalize_rows(matrix)[0].tolist() == [0.75, 0.25]
    assert np.isnan(normalize_rows(matrix)[1]).all()
    draw_confusion(tmp_path / "a.png", matrix, ["ground", "square"], "")
    assert sorted(texts(drawn[0])) == ["25", "75", "–", "–"]
    assert [t.get_text() for t in drawn[0].axes[0].get_yticklabels()] == ["ground", "square"]


def test_21_classes_are_large_enough_to_be_read(tmp_path):
    draw_confusion(tmp_path / "a.png", np.eye(21, dtype=int), [f"c{i}" for i in range(21)], "")
    width, height = Image.open(tmp_path / "a.png").size
    assert width / 21 > 60 and height / 21 > 60  # pixels a cell, margins included


def test_validation_is_drawn_in_percent_over_epochs_and_the_loss_over_steps(tmp_path, drawn):
    curves = {"train/loss": curve([2, 1]), "lr": curve([0.1, 0.05]), "val/miou": curve([0.25, 0.5])}
    draw_curves(tmp_path / "a.png", curves, "run", best_epoch=2)
    loss, _, scores = drawn[0].axes
    assert loss.lines[0].get_xydata().tolist() == [[10, 2], [20, 1]]
    assert scores.lines[0].get_xydata().tolist() == [[1, 25], [2, 50]]
    assert [t.get_text() for t in scores.get_legend().get_texts()] == ["mIoU", "best: 2"]


@pytest.mark.parametrize("curves", [{}, {"train/loss": curve([NAN])}, {"val/miou": curve([NAN])}])
def test_a_run_that_logged_next_to_nothing_has_its_curves_too(tmp_path, curves):
    draw_curves(tmp_path / "a.png", curves, "run")
    assert Image.open(tmp_path / "a.png").size == (1650, 780)


def test_titles_name_the_run_and_its_weights(tmp_path):
    assert run_name(tmp_path / "runs" / "2025-01-02") == "2025-01-02"
    assert run_name(tmp_path / "2025-01-02" / "3") == "2025-01-02/3"
    assert weights_name("a/run7/checkpoints/best.ckpt") == "run7/best"
    assert weights_name("down/fcn8s.ckpt") == "fcn8s"
    assert in_percent(0.5432) == "54.3 %" and in_percent(NAN) == "–"


def test_matplotlib_waits_for_the_first_figure_and_keeps_its_own_style(tmp_path):
    code = "import sys, src.visualization.charts, src.visualization.sheets; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_class_iou(tmp_path / "a.png", {"a": 1.0}, voc_palette(1), "")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in vars(figures)


def test_dollars_in_names_are_no_formula(tmp_path):
    draw_class_iou(tmp_path / "a.png", {"$b\\c$": 0.5, "d": 0.5}, voc_palette(2), r"$x\y$")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_names_that_no_font_can_write_are_one_line_of_log(tmp_path, monkeypatch, recwarn):
    lines = []
    monkeypatch.setattr(figures, "_CHINESE", ("No Such Font", "Nor This"))
    monkeypatch.setattr(figures.log, "warning", lambda text, *args: lines.append(text % args))
    draw_class_iou(tmp_path / "a.png", {"背景": 0.5, "飞机": 0.2}, voc_palette(2), "")
    assert len(lines) == 1 and "a.png" in lines[0] and "No Such Font" in lines[0]
    assert len(recwarn) == 0
