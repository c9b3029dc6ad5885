"""The figures of a run: which images, which weights, and that they never cost a run."""

import logging
import math
from contextlib import nullcontext
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.device.process_group import ProcessGroup
from src.engine.callbacks import figures
from src.engine.callbacks.figures import Figures, extreme_images, spread, weights_of
from src.engine.checkpoint import save_weights
from src.engine.evaluator import Evaluation, Evaluator, ImageScores
from src.metrics import ConfusionMatrix

NAN = float("nan")
RIGHT = (0.25, 0.5, 1.0, 0.75)  # share of right pixels of the four images


class HalfRight:
    """Predicts class 0 everywhere and counts how often it is asked."""

    protocol = {}

    def __init__(self):
        self.asked = 0

    def predict(self, image):
        self.asked += 1
        return np.zeros(image.shape[:2], np.uint8)


def evaluator():
    samples = []
    for i, right in enumerate(RIGHT):
        label = np.ones((20, 4), np.uint8)
        label[: int(20 * right)] = 0
        image = np.full((20, 4, 3), 40 * i, np.uint8)
        samples.append(SimpleNamespace(name=f"image{i}", image=image, label=label))
    return Evaluator(HalfRight(), samples, ConfusionMatrix(2), ("ground", "square"), "val")


class Recorder:
    """A logger that keeps what it gets."""

    def log_images(self, paths):
        self.images = [path.name for path in paths]

    def log_table(self, name, columns, rows):
        self.table = [columns, *rows]

    def log_masks(self, name, cases, labels):
        self.masks = [case.name for case in cases]


def run_to_end(tmp_path, callback, best_epoch=2):
    """Calls the callback at the end of a run of two epochs, of which one was the best."""
    judge = evaluator()
    evaluation = judge.run(4)
    judge.segmenter.asked = 0
    network = nn.Conv2d(1, 1, 1, weight_init="ones")
    callback.trainer = SimpleNamespace(
        output_dir=tmp_path / "run7",
        checkpoint_dir=tmp_path,
        monitor="val/miou",
        monitored_weights=nullcontext,
        process_group=ProcessGroup(),
        evaluator=judge,
        loggers=[Recorder()],
        train_step=SimpleNamespace(network=network),
        state=SimpleNamespace(
            epoch=2,
            best={"epoch": best_epoch, "val/miou": evaluation.scores["miou"]},
            best_evaluation=evaluation,
            evaluation=evaluation,
        ),
    )
    (tmp_path / "run7").mkdir()
    (tmp_path / "run7" / "metrics.csv").write_text("epoch,step,train/loss\n1,1,2.0\n")
    callback.on_train_end(None)
    return callback.trainer


def test_every_image_has_its_own_scores():
    images = evaluator().run(4).images
    assert [image.name for image in images] == ["image0", "image1", "image2", "image3"]
    assert [image.pixel_acc for image in images] == list(RIGHT)
    assert images[0].miou == pytest.approx((0.25 + 0) / 2)
    assert images[2].miou == 1.0  # class 1 is neither there nor predicted


def test_scores_of_the_whole_are_still_those_of_all_pixels():
    evaluation = evaluator().run(4)
    assert evaluation.matrix.tolist() == [[200, 0], [120, 0]]
    assert evaluation.scores["pixel_acc"] == 0.625


def test_worst_and_best_share_no_image_and_nan_is_neither():
    assert extreme_images([0.5, NAN, 0.1, 0.9, 0.3], 4) == ([2, 4], [3, 0])
    assert extreme_images([0.5, 0.2, 0.8, 0.1], 1) == ([3], [2])
    assert extreme_images([0.5], 4) == ([], []) and extreme_images([], 4) == ([], [])


def test_images_are_spread_evenly_over_the_split():
    assert spread(101, 6) == [0, 20, 40, 60, 80, 100]
    assert spread(3, 6) == [0, 1, 2] and spread(1, 6) == [0] and spread(0, 6) == []


def test_a_run_ends_with_its_figures_each_image_predicted_once_more_at_most(tmp_path):
    trainer = run_to_end(tmp_path, Figures(samples=2, extremes=1))
    names = ["best", "class_iou", "confusion_matrix", "curves", "predictions", "worst"]
    assert sorted(p.stem for p in (tmp_path / "run7" / "figures").iterdir()) == names
    assert trainer.evaluator.segmenter.asked == 3  # images 0 and 3; worst is 0, best is 2
    logger = trainer.loggers[0]
    assert sorted(logger.images) == [f"{name}.png" for name in names]
    assert logger.masks == ["image0", "image3"]
    columns = ["class", "iou", "acc", "dice", "precision", "recall"]
    assert logger.table[0] == [*columns, "target_pixels", "pred_pixels"]
    assert logger.table[1] == ["ground", 0.625, 1.0, 400 / 520, 0.625, 1.0, 200, 320]


def test_a_figure_that_fails_is_a_warning_and_the_others_are_drawn(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(figures.log, "warning", lambda text, *args: warnings.append(text % args))

    def broken(*args):
        raise MemoryError("no room for the matrix")

    monkeypatch.setattr(figures, "draw_confusion", broken)
    trainer = run_to_end(tmp_path, Figures())
    assert len(warnings) == 1
    assert "confusion_matrix.png" in warnings[0] and "no room for the matrix" in warnings[0]
    assert (tmp_path / "run7" / "figures" / "worst.png").exists()
    assert "confusion_matrix.png" not in trainer.loggers[0].images


def test_a_logger_that_fails_is_a_warning_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    monkeypatch.setattr(Recorder, "log_images", lambda self, paths: 1 / 0)
    run_to_end(tmp_path, Figures())
    assert "division by zero" in caplog.text


def test_the_best_weights_are_lent_to_the_network_and_given_back(tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = nn.Conv2d(1, 1, 1, weight_init="ones")
    network.weight.set_data(network.weight * 5)
    save_weights(network, tmp_path / "best.ckpt")
    network.weight.set_data(network.weight * 2)
    with pytest.raises(ZeroDivisionError), weights_of(network, tmp_path / "best.ckpt"):
        assert network.weight.asnumpy().item() == 5
        math.sqrt(1 / 0)
    assert network.weight.asnumpy().item() == 10


def test_an_older_best_epoch_is_predicted_with_its_own_weights(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(figures, "weights_of", lambda n, p: loaded.append(p) or weights_of(n, None))
    (tmp_path / "best.ckpt").touch()
    run_to_end(tmp_path, Figures(), best_epoch=1)
    assert loaded == [tmp_path / "best.ckpt"]


def test_scores_by_image_are_written_worst_first_and_those_without_a_score_last(tmp_path):
    images = (ImageScores("b", 0.5, 0.75), ImageScores("void", NAN, NAN), ImageScores("a", 1, 0.25))
    evaluation = Evaluation({}, {}, np.zeros((2, 2)), {}, images)
    ordered = evaluation.save_images(tmp_path / "per_image.csv")
    assert [image.name for image in ordered] == ["a", "b", "void"]
    lines = (tmp_path / "per_image.csv").read_text().splitlines()
    assert lines == ["name,pixel_acc,miou", "a,1,0.25", "b,0.5,0.75", "void,,"]
