"""The pictures and the report that commands leave behind."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SHEETS = {"class_iou.png", "confusion_matrix.png", "predictions.png", "worst.png", "best.png"}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_training_and_evaluation_end_with_figures_and_a_report_finds_them(workshop):
    # With the worst as "best", the weights of the figures are not the last ones
    worst = ("trainer.monitor_mode=min", "trainer.max_epochs=3", "trainer.limit_val_batches=3")
    printed = workshop.train("experiments/train/runs/a", *worst, figures=True)
    run = workshop.path / "experiments/train/runs/a"
    assert json.loads((run / "summary.json").read_text())["best"]["epoch"] < 3
    assert names(run / "figures") == SHEETS | {"curves.png"}
    assert "figures → " in printed

    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    workshop.run("eval", checkpoint, "limit_samples=3", "output_dir=experiments/eval/runs/b")
    again = workshop.path / "experiments/eval/runs/b/figures"
    assert names(again) == SHEETS
    # Below the titles, which name the run there and the weights here, both show the same
    during, after = (np.array(Image.open(f / "predictions.png")) for f in (run / "figures", again))
    assert np.array_equal(during[72:], after[72:])

    printed = workshop.run("report")
    assert "experiments/report.html" in printed and "completed" in printed
    page = (workshop.path / "experiments" / "report.html").read_text()
    assert 'href="train/runs/a/figures/curves.png"' in page
