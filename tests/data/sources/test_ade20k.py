"""ADE20K and COCO-Stuff, laid out as their archives unpack."""

import numpy as np
import pytest
from PIL import Image

from src.cli import build
from src.cli.command import compose_config


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def labels(dataset, root, splits):
    cfg = compose_config("train", [f"dataset={dataset}", f"dataset.root={root}",
                                   f"dataset.prepared_dir={root.parent}/prepared"])  # fmt: skip
    data = build.datamodule(cfg)
    assert (data.train_split, data.val_split) == splits
    data.prepare(*splits)
    return data.class_names, data.eval_samples(splits[1])[0].label


@pytest.mark.parametrize("inner", ["ADEChallengeData2016", "."])
def test_ade20ks_zero_is_void_and_its_ids_start_at_one(tmp_path, inner):
    for split, name in {"training": "ADE_train_00000001", "validation": "ADE_val_00000001"}.items():
        save(tmp_path / "ade" / inner / "images" / split / f"{name}.jpg", np.zeros((4, 6, 3)))
        label = np.arange(24).reshape(4, 6)
        label[-1, -1] = 150
        save(tmp_path / "ade" / inner / "annotations" / split / f"{name}.png", label)
    names, label = labels("ade20k", tmp_path / "ade", ("training", "validation"))
    assert label.ravel().tolist() == [255, *range(22), 149]
    assert (names[0], names[12], names[149]) == ("wall", "person", "flag")


def test_coco_stuffs_ids_are_cocos_less_one_and_leave_out_eleven_things(tmp_path):
    for split in ("train2017", "val2017"):
        save(tmp_path / "coco" / "images" / split / "000000000009.jpg", np.zeros((1, 6, 3)))
        stored = [[0, 10, 12, 91, 181, 255]]
        save(tmp_path / "coco" / "annotations" / split / "000000000009.png", stored)
    names, label = labels("coco_stuff", tmp_path / "coco", ("train2017", "val2017"))
    assert [names[i] for i in label[0][:-1]] == [
        "person", "fire hydrant", "stop sign", "banner", "wood"
    ]  # fmt: skip
    assert label[0].tolist() == [0, 10, 11, 80, 170, 255]
