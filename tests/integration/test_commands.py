"""Whole commands in a temporary directory: train, eval, predict, prepare."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from src.data.images import read_image
from src.metrics import ConfusionMatrix
from src.utils.video import Video
from src.visualization.video import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def trained(workshop):
    """A finished run: its directory and what it printed."""
    printed = workshop.train("run_a", "trainer.keep_top_k=1", "trainer.save_every_n_steps=2")
    return workshop.path / "run_a", printed


def losses(run):
    with open(run / "metrics.csv", newline="") as file:
        return [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]


def test_a_run_directory_holds_what_it_promises(trained):
    run, printed = trained
    for name in (
        ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
        "config.resolved.yaml", "train.log", "metrics.csv", "summary.json", "eval.json",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["best"]["epoch"] in (1, 2) and 0 <= summary["best"]["val/miou"] <= 1
    assert summary["last"]["epoch"] == 2 and summary["last"]["step"] == 10
    scores = json.loads((run / "eval.json").read_text())
    assert scores["miou"] == pytest.approx(summary["best"]["val/miou"])
    assert list(scores["per_class"]) == ["background", "square", "disc"]
    assert "compiling" in printed and "oneDNN" in (run / "train.log").read_text()


def test_equal_seeds_give_equal_loss_sequences_whatever_the_workers(workshop, trained):
    run, _ = trained
    workshop.train("run_b", "dataset.num_workers=1")
    assert losses(run) == losses(workshop.path / "run_b")
    first = (run / "checkpoints" / "last.ckpt").read_bytes()
    assert first == (workshop.path / "run_b" / "checkpoints" / "last.ckpt").read_bytes()


def test_eval_repeats_the_validation_and_predict_writes_the_same_ids(workshop, trained):
    run, _ = trained
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    printed = workshop.run("eval", checkpoint, "output_dir=evaluated")
    assert "square" in printed and "miou" in printed
    evaluated = json.loads((workshop.path / "evaluated" / "eval.json").read_text())
    during = json.loads((run / "eval.json").read_text())
    assert evaluated["miou"] == during["miou"]
    assert evaluated["protocol"]["split"] == "val"

    pictures = workshop.path / "val_images"
    pictures.mkdir()
    names = (workshop.data / "ImageSets/Segmentation/val.txt").read_text().split()
    for name in names:
        (pictures / f"{name}.jpg").symlink_to(workshop.data / "JPEGImages" / f"{name}.jpg")
    workshop.run("predict", checkpoint, f"input={pictures}", "output=predictions")
    matrix = ConfusionMatrix(3, 255)
    for name in names:
        ids = np.array(Image.open(workshop.path / "predictions" / f"{name}.png"))
        label = np.array(Image.open(workshop.data / "SegmentationClass" / f"{name}.png"))
        matrix.update(label, ids)
        palette = Image.open(workshop.path / "predictions" / f"{name}_palette.png")
        assert palette.mode == "P" and np.array_equal(np.array(palette), ids)
        picture = Image.open(workshop.path / "predictions" / f"{name}_overlay.png")
        assert picture.size == ids.shape[::-1] and picture.mode == "RGB"
    assert matrix.scores() == pytest.approx({k: evaluated[k] for k in matrix.scores()})


def test_eval_without_a_checkpoint_takes_the_newest_completed_run(workshop):
    printed = workshop.run("eval", "paths.experiments_dir=empty", code=1)
    assert "make demo" in printed and "Traceback" not in printed
    workshop.train("experiments_b/train/runs/1")
    workshop.train("experiments_b/debug/runs/2", "debug=fast")
    printed = workshop.run("eval", "paths.experiments_dir=experiments_b", "limit_samples=2")
    assert "experiments_b/train/runs/1" in printed


def test_an_old_run_is_never_written_into(workshop, trained):
    run, _ = trained
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    printed = workshop.train("run_a", code=1)
    assert "holds a run already" in printed and printed.count("\n") == 1
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def test_one_broken_image_does_not_stop_a_prediction_but_the_exit_code_tells(workshop, trained):
    run, _ = trained
    pictures = workshop.path / "some_broken"
    pictures.mkdir()
    good = workshop.data / "JPEGImages" / "v00.jpg"
    (pictures / "good.jpg").write_bytes(good.read_bytes())
    (pictures / "cut.jpg").write_bytes(good.read_bytes()[:900])
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    printed = workshop.run("predict", checkpoint, f"input={pictures}", "output=partly", code=1)
    assert "cut.jpg" in printed and "Traceback" not in printed
    assert (workshop.path / "partly" / "good.png").exists()
    again = workshop.run("predict", checkpoint, f"input={pictures}", "output=partly", code=1)
    assert "give another folder" in again


def test_a_video_gives_an_overlay_video_and_the_ids_of_every_frame(workshop, trained):
    run, _ = trained
    image = read_image(workshop.data / "JPEGImages" / "v01.jpg")[:70, :88]
    videos = workshop.path / "videos"
    videos.mkdir()
    write_video(videos / "clip.mp4", [image, image[:, ::-1], image], rate=5)
    (videos / "text.avi").write_text("no video")
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    printed = workshop.run("predict", checkpoint, f"input={videos}", "output=moving", code=1)
    assert "text.avi: cannot be read as a video" in printed and "1 of 2 files" in printed
    output = workshop.path / "moving"
    video = Video(output / "clip_overlay.mp4")
    assert (video.count, video.rate) == (3, 5) and next(iter(video)).shape == (70, 88, 3)
    names = [f"{number:06d}{end}.png" for number in (1, 2, 3) for end in ("", "_palette")]
    assert sorted(p.name for p in (output / "clip").iterdir()) == names
    assert np.array(Image.open(output / "clip" / "000003.png")).shape == (70, 88)

    limited = ("limit_samples=2", "output=two_frames")
    workshop.run("predict", checkpoint, f"input={videos / 'clip.mp4'}", *limited)
    assert len(list((workshop.path / "two_frames" / "clip").iterdir())) == 4


def test_another_dataset_of_other_classes_does_not_fit_a_checkpoint(workshop, trained):
    run, _ = trained
    printed = workshop.run(
        "eval", f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}", "dataset=shapes", code=1
    )
    assert "class" in printed and "Traceback" not in printed


def test_prepare_reports_counts_and_labels(workshop):
    printed = workshop.run(
        "prepare", "dataset=folder", f"dataset.root={workshop.data}", "output_dir=prepared"
    )
    report = json.loads((workshop.path / "prepared" / "report.json").read_text())
    assert set(report) == {"train", "val"}
    assert "square" in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimizer.lr=0.1"], "optimizer.lr: unknown key"),
        (["+trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'?"),
        (["++devise.target=CPU"], "did you mean 'device'?"),
        (["model=fcn9s"], "model=fcn9s: no such option; did you mean 'fcn"),
        (["modle=fcn8s"], "did you mean 'model'?"),
        (["dataset.batch_size=0"], "dataset.batch_size=0: expected a whole number of at least 1"),
        (["dataset.batch_size=11"], "less than one batch"),
        (["model.stride=4"], "model.stride=4: expected one of 8, 16, 32, at which"),
        (["model.stride=2"], "model.stride=2: expected one of 4, 8, 16, 32"),
        (["dataset.root=nowhere"], "nowhere"),
        (["trainer.monitor=val/mIoU"], "did you mean 'val/miou'?"),
        (["device=ascend"], "device.target=Ascend"),
        (["device=gpu"], "device.target=GPU"),
        (["model.weights=missing.ckpt"], "missing.ckpt"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_1(workshop, arguments, expected, tmp_path):
    base = ["dataset=folder", f"dataset.root={workshop.data}", "print_config=false"]
    base += ["model/backbone=vgg_slim", "dataset.crop_size=[64,64]", "trainer.max_epochs=1"]
    base += [] if any("batch_size" in a for a in arguments) else ["dataset.batch_size=2"]
    printed = workshop.run("train", *base, f"output_dir={tmp_path / 'run'}", *arguments, code=1)
    assert expected in printed
    assert not any(noise in printed for noise in ("Traceback", "[WARNING]", "[ERROR]"))
    if (tmp_path / "run").exists():
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert summary["status"] == "failed" and summary["reason"] in " ".join(printed.split())


def test_a_directory_that_cannot_be_had_is_one_line(workshop):
    (workshop.path / "file").touch()
    (workshop.path / "held").mkdir()
    (workshop.path / "held" / "summary.json").touch()
    for directory, reason in (("file/run", "not writable"), ("held", "holds a run already")):
        printed = workshop.run("prepare", f"output_dir={directory}", code=1)
        assert reason in printed and len(printed.splitlines()) == 1


def test_the_original_fcns_stages_follow_each_other_on_images_of_all_sizes(workshop):
    tiny = (
        "dataset=folder", f"dataset.root={workshop.data}", "model.backbone.width=0.03",
        "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
        "paths.experiments_dir=heavy", "print_config=false",
    )  # fmt: skip
    workshop.run("train", "experiment=fcn32s_heavy", *tiny)
    printed = workshop.run("train", "experiment=fcn16s_heavy", *tiny)
    assert "30 of 30 parameters of the backbone loaded, 2 of" in " ".join(printed.split())
    summary = workshop.path / "heavy" / "fcn_heavy" / "runs" / "16s" / "summary.json"
    assert json.loads(summary.read_text())["last"]["step"] == 2
