"""Logged scalars: rows that are on the disk at once; W&B that never stops a run."""

import csv
import io
import json
import logging
import sys

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

from src.cli.command import compose_config
from src.engine.loggers.csv import CsvLogger
from src.engine.loggers.tensorboard import TensorBoardLogger
from src.engine.loggers.wandb import WandbLogger
from src.visualization.sheets import Case, Classes

CLASSES = Classes(("ground", "square"), np.array([[0, 0, 0], [128, 0, 0]], np.uint8))


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def started(logger, config=None):
    logger.start(config or {}, None)
    return logger


def test_rows_are_on_the_disk_when_log_returns_and_new_keys_add_columns(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.log({"train/loss": 2.5, "lr": 0.1}, epoch=1, step=10)
    assert rows(tmp_path / "metrics.csv") == [
        {"epoch": "1", "step": "10", "train/loss": "2.5", "lr": "0.1"}
    ]
    logger.log({"val/miou": 0.5, "val/iou/a, b": float("nan")}, epoch=1, step=10)
    logger.log({"train/loss": 2.0, "lr": 0.05}, epoch=2, step=20)
    first, second, third = rows(tmp_path / "metrics.csv")
    assert first["train/loss"] == "2.5" and first["val/miou"] == ""
    assert second["val/miou"] == "0.5" and second["val/iou/a, b"] == "nan"
    assert second["train/loss"] == "" and third["train/loss"] == "2.0"


def test_a_logger_opened_again_goes_on_below_the_old_rows(tmp_path):
    CsvLogger(tmp_path).log({"train/loss": 2.5}, epoch=1, step=1)
    CsvLogger(tmp_path).log({"val/miou": 0.5}, epoch=1, step=2)
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["1", "2"]


def test_without_the_package_wandb_is_off_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    logger = started(WandbLogger(tmp_path, "project"))
    logger.log({"train/loss": 1.0}, epoch=1, step=1)
    logger.close("completed")
    assert logger.run_id is None


def test_an_offline_run_is_written_below_the_run_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = started(WandbLogger(tmp_path, "project"), {"seed": 1})
    assert logger.run_id
    logger.log({"train/loss": 1.0}, epoch=1, step=1)
    logger.close("completed")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_wandbs_own_variables_are_obeyed_unless_the_command_line_says_otherwise(
    tmp_path, monkeypatch
):
    wandb = pytest.importorskip("wandb")
    variables = {"PROJECT": "of-env", "ENTITY": "team", "TAGS": "a,b", "DIR": str(tmp_path)}
    for name, value in (variables | {"MODE": "offline"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # it reads them once a process
    for arguments, project in ([], "of-env"), (["logger.wandb.project=mine"], "mine"):
        wanted = ["logger=wandb", f"output_dir={tmp_path}/run", *arguments]
        logger = started(instantiate(compose_config("train", wanted).logger.wandb))
        run = wandb.run
        assert (run.project, run.entity, run.tags) == (project, "team", ("a", "b"))
        logger.close("completed")
    wandb.teardown()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_figures_class_table_and_masks_go_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    Image.new("RGB", (8, 8)).save(tmp_path / "curves.png")
    label = np.array([[0, 1], [255, 1]], np.uint8)
    pred = np.array([[0, 0], [1, 1]], np.uint8)
    logger = started(WandbLogger(tmp_path, "project"))
    logger.log({"train/loss": 1.0}, epoch=1, step=1)
    logger.log_images([tmp_path / "curves.png"])
    logger.log_table("per_class", ["class", "iou"], [["ground", 0.5], ["square", float("nan")]])
    case = Case("a", np.zeros((2, 2, 3), np.uint8), label, pred, "")
    logger.log_masks("predictions", [case], CLASSES)
    logger.close("completed")
    (media,) = tmp_path.glob("wandb/offline-run-*/files/media")
    (table,) = media.glob("table/per_class_*.table.json")
    assert json.loads(table.read_text())["data"] == [["ground", 0.5], ["square", None]]
    assert len(list(media.glob("images/figures/curves_*.png"))) == 1
    masks = [np.array(Image.open(p)) for p in media.glob("images/mask/predictions/1_*.mask.png")]
    assert sorted(mask.tolist() for mask in masks) == [pred.tolist(), label.tolist()]


class Broken:
    """A W&B run whose process has been killed."""

    id = "abc"

    def log(self, *_, **__):
        raise ConnectionResetError("Connection lost")

    finish = log


@pytest.mark.parametrize("first", ["log", "close"])
def test_when_wandb_dies_the_run_goes_on_and_is_told_once(tmp_path, monkeypatch, caplog, first):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(logging.getLogger("src"), "propagate", True)
    monkeypatch.setattr(WandbLogger, "open", lambda *_: Broken())
    logger = started(WandbLogger(tmp_path, "project"))
    if first == "log":
        logger.log({"train/loss": 1.0}, epoch=1, step=1)
        assert logger.run_id is None
        logger.log_table("per_class", ["class"], [["ground"]])
    logger.close("completed")
    assert caplog.text.count("W&B is off from here on (Connection lost)") == 1


def test_csv_leaves_pictures_to_the_run_directory(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.log_images([tmp_path / "curves.png"])
    logger.log_table("per_class", ["class"], [["ground"]])
    logger.log_masks("predictions", [], CLASSES)
    assert list(tmp_path.iterdir()) == []


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


def test_tensorboards_own_reader_finds_the_rows_of_the_csv(tmp_path):
    loggers = [CsvLogger(tmp_path), started(TensorBoardLogger(tmp_path))]
    for step, loss in enumerate([2.5, 1.5, 0.75], 1):
        for logger in loggers:
            logger.log({"train/loss": loss, "val/iou/road": loss / 4}, epoch=1, step=step)
    loggers[1].close("completed")
    found = events(tmp_path / "tensorboard")
    for key in ("train/loss", "val/iou/road"):
        logged = [(int(row["step"]), float(row[key])) for row in rows(tmp_path / "metrics.csv")]
        assert [(event.step, event.value) for event in found.Scalars(key)] == logged


def test_a_resumed_run_has_each_step_once_in_tensorboard(tmp_path):
    first = started(TensorBoardLogger(tmp_path))
    first.log({"train/loss": 3.0}, epoch=1, step=1)
    saved = first.state_dict()
    first.log({"train/loss": 9.0}, epoch=1, step=2)  # after the state that the run resumes from
    first.close("failed")
    second = TensorBoardLogger(tmp_path)
    second.start({}, resume_id=first.run_id)
    second.load_state_dict(saved)
    for step, loss in ((2, 2.0), (3, 1.0)):
        second.log({"train/loss": loss}, epoch=1, step=step)
    second.close("completed")
    found = events(tmp_path / "tensorboard").Scalars("train/loss")
    assert [(event.step, event.value) for event in found] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_figures_tables_masks_and_hyperparameters_go_to_tensorboard(tmp_path):
    Image.new("RGB", (8, 6), (1, 2, 3)).save(tmp_path / "curves.png")
    label = np.array([[0, 1], [255, 1]], np.uint8)
    pred = np.array([[0, 0], [1, 1]], np.uint8)
    logger = started(TensorBoardLogger(tmp_path), {"optimizer": {"learning_rate": 0.1}, "x": 1})
    logger.log({"train/loss": 1.0}, epoch=1, step=7)
    logger.log_images([tmp_path / "curves.png"])
    logger.log_table("per_class", ["class", "iou"], [["ground", 0.5], ["square", float("nan")]])
    logger.log_masks(
        "predictions", [Case("a", np.zeros((2, 2, 3), np.uint8), label, pred, "")], CLASSES
    )
    logger.log_best({"epoch": 1, "step": 5, "val/miou": 0.5})
    logger.close("completed")
    found = events(tmp_path / "tensorboard")
    (figure,) = found.Images("figures/curves")
    assert (figure.step, figure.width, figure.height) == (7, 8, 6)
    (masks,) = found.Images("predictions/a")
    pixels = np.array(Image.open(io.BytesIO(masks.encoded_image_string)))
    image, shown_label, shown_pred = np.split(pixels, 3, axis=1)
    assert shown_pred.tolist() == [[[0, 0, 0]] * 2, [[128, 0, 0]] * 2]
    assert shown_label[0].tolist() == [[0, 0, 0], [128, 0, 0]]
    (table,) = found.Tensors("per_class/text_summary")
    assert b"| square | nan |" in table.tensor_proto.string_val[0]
    hparams = events(tmp_path / "tensorboard" / "hparams")
    assert hparams.Tags()["scalars"] == ["val/miou"]
    (best,) = hparams.Scalars("val/miou")
    assert (best.step, best.value) == (5, 0.5)
    assert "_hparams_/session_start_info" in hparams.summary_metadata


def test_tensorboard_has_scalars_alone_where_asked_to(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "curves.png")
    logger = started(TensorBoardLogger(tmp_path, scalars_only=True))
    logger.log({"train/loss": 1.0}, epoch=1, step=1)
    logger.log_images([tmp_path / "curves.png"])
    logger.log_table("per_class", ["class"], [["ground"]])
    logger.log_best({"val/miou": 0.5})
    logger.close("completed")
    assert len(list(tmp_path.rglob("events.*"))) == 1
    tags = {kind: names for kind, names in events(tmp_path / "tensorboard").Tags().items() if names}
    assert tags == {"scalars": ["epoch", "train/loss"]}


def test_without_the_package_tensorboard_is_off_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    logger = started(TensorBoardLogger(tmp_path))
    logger.log({"train/loss": 1.0}, epoch=1, step=1)
    logger.load_state_dict({"step": 1})
    logger.close("completed")
    assert list(tmp_path.iterdir()) == []
