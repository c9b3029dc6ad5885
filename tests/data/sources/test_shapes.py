"""The embedded dataset: repeatable, whole or absent, and shape is the only cue to the class."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.sources.shapes import CLASS_NAMES, ShapesSource, draw_scene
from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> ShapesSource:
    made = ShapesSource(tmp_path_factory.mktemp("shapes"), train=16, val=4)
    made.prepare()
    return made


def scenes(count):
    return [draw_scene(0, "train", i) for i in range(count)]


def test_a_scene_is_a_function_of_seed_split_and_index():
    image, label = draw_scene(3, "train", 5)
    again = draw_scene(3, "train", 5)
    assert np.array_equal(image, again[0]) and np.array_equal(label, again[1])
    for other in (draw_scene(4, "train", 5), draw_scene(3, "val", 5), draw_scene(3, "train", 6)):
        assert other[1].shape != label.shape or not np.array_equal(other[1], label)


def test_the_folder_has_the_layout_of_voc_and_palette_labels(source):
    assert source.class_names == CLASS_NAMES and source.generated
    train, val = source.samples("train"), source.samples("val")
    assert len(train) == 16 and len(val) == 4
    for sample in train:
        image, label = Image.open(sample.image), Image.open(sample.label)
        assert image.size == label.size and label.mode == "P" and image.mode == "RGB"
        ids = set(np.unique(np.array(label)).tolist())
        assert ids <= {*range(7), 255} and 255 in ids
    sizes = {Image.open(sample.image).size for sample in train}
    assert len(sizes) > 8 and any(side % 32 for size in sizes for side in size)


def test_every_object_is_outlined_by_void():
    for _, label in scenes(4):
        left, right = label[:, :-1].astype(int), label[:, 1:].astype(int)
        touching = (left != right) & (left != 255) & (right != 255)
        assert not touching.any()


def test_every_class_has_its_share_of_the_pixels():
    labels = np.concatenate([label.ravel() for _, label in scenes(40)])
    share = np.bincount(labels[labels != 255], minlength=7) / (labels != 255).sum()
    assert 0.5 < share[0] < 0.85
    assert share[1:].min() > 0.015 and share[1:].max() < 3 * share[1:].min()


def test_colour_alone_does_not_give_the_class():
    """A Bayes classifier over an 8×8×8 colour histogram, trained on 60 scenes, tried on 20."""

    def pixels(some):
        colors = np.concatenate([(image // 32).reshape(-1, 3) for image, _ in some]).astype(int)
        targets = np.concatenate([label.ravel() for _, label in some])
        keep = targets != 255
        return (colors @ [64, 8, 1])[keep], targets[keep].astype(int)

    made = scenes(80)
    bins, targets = pixels(made[:60])
    counts = np.bincount(bins * 7 + targets, minlength=512 * 7).reshape(512, 7) + 1e-3
    likelihood = counts / counts.sum(axis=0)  # classes count alike, as they do in mIoU
    bins, targets = pixels(made[60:])
    pred = likelihood.argmax(axis=1)[bins]
    ious = [
        ((pred == c) & (targets == c)).sum() / ((pred == c) | (targets == c)).sum()
        for c in range(1, 7)
    ]
    assert np.mean(ious) < 0.1


def test_another_seed_or_size_has_a_folder_of_its_own(tmp_path):
    folders = {
        ShapesSource(tmp_path, **options).root
        for options in ({}, {"seed": 1}, {"train": 9}, {"size_range": (130, 140)})
    }
    assert len(folders) == 4


def test_preparing_again_changes_nothing(source):
    before = {p: p.stat().st_mtime_ns for p in source.root.rglob("*")}
    source.prepare()
    assert before == {p: p.stat().st_mtime_ns for p in source.root.rglob("*")}


def test_two_processes_at_once_make_one_whole_set(tmp_path):
    code = (
        "from src.data.sources.shapes import ShapesSource\n"
        f"ShapesSource({str(tmp_path)!r}, train=6, val=2).prepare()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    made = ShapesSource(tmp_path, train=6, val=2)
    assert len(made.samples("train")) == 6
    folders = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert folders == [made.root]


def test_what_a_killed_generation_left_is_cleared_away(tmp_path):
    made = ShapesSource(tmp_path, train=2, val=1)
    stale = made.root.with_name(f".{made.root.name}.tmp")
    stale.mkdir(parents=True)
    (stale / "half.jpg").touch()
    made.prepare()
    assert not stale.exists() and len(made.samples("train")) == 2


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"train": 0}, {"size_range": (10, 20)}, {"size_range": (300, 200)}]
)
def test_impossible_parameters_are_refused(options, tmp_path):
    with pytest.raises(UserError, match="expected"):
        ShapesSource(tmp_path, **options)
