"""The preview shows what training gets, in its true colours."""

import numpy as np
import pytest
from PIL import Image

from src.cli import build
from src.cli.command import compose_config
from src.data.loader import TrainSamples
from src.preview import preview
from src.runs.directory import RunDirectory
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB

RED, PALETTE_1 = (200, 40, 20), (128, 0, 0)


@pytest.fixture
def config(tmp_path):
    """A dataset of red images, 60 high and 80 wide, whose right half is class 1."""
    root = tmp_path / "red"
    label = np.zeros((60, 80), np.uint8)
    label[:, 40:] = 1
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (80, 60), RED).save(root / "images" / f"{i}.png")
        Image.fromarray(label).save(root / "masks" / f"{i}.png")
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "val.txt").write_text("0\n")
    return compose_config(
        "preview",
        [
            "dataset=folder", f"dataset.root={root}", "dataset.num_classes=2", "dataset.flip=0",
            "dataset.crop_size=[190,190]", "dataset.scale_range=null", "dataset.color_order=bgr",
            f"paths.data_dir={tmp_path}/data", f"output_dir={tmp_path}/run", "count=16",
        ],
    )  # fmt: skip


def test_colours_are_true_though_the_network_takes_bgr_and_padding_is_striped(config, tmp_path):
    preview.task(config, RunDirectory(config.output_dir, "preview", "preview"))
    pixels = np.array(Image.open(tmp_path / "run" / "preview.png").convert("RGB"))
    plain, labelled = pixels[80:270, 24:214], pixels[80:270, 216:406]
    assert (plain[:60, :80] == RED).all()
    assert (labelled[:60, :40] == RED).all()  # background
    assert labelled[30, 60].tolist() == [(a + b) // 2 for a, b in zip(RED, PALETTE_1, strict=True)]
    for tile in (plain, labelled):
        assert set(np.unique(tile[60:])) == set(np.unique(tile[:, 80:])) == {205, 235}


def test_crops_are_what_training_batches_are_made_of(config):
    config.dataset.scale_range, config.dataset.flip = [0.5, 2.0], 0.5
    data = build.datamodule(config)
    crops = data.train_crops()
    samples = TrainSamples(crops, IMAGENET_RGB)
    keys = crops.keys(epoch=2)
    assert sorted(key - 2 * 3 for key in keys) == [0, 1, 2]
    for key in keys:
        name, crop, label, padding = crops[key]
        planes = IMAGENET_RGB.apply(crop)
        for region in padding:
            planes[(slice(None), *region)] = 0
        trained, target = samples[key]
        assert name == str(key - 2 * 3)
        assert np.array_equal(planes, trained) and np.array_equal(label, target)


def test_no_samples_are_refused(config, tmp_path):
    config.count = 0
    with pytest.raises(UserError, match="count=0"):
        preview.task(config, RunDirectory(tmp_path / "other", "preview", "preview"))
