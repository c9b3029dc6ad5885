"""Colours of classes."""

import numpy as np
from PIL import Image

from src.utils.palette import voc_palette
from src.visualization.overlays import colorize, overlay, write_ids, write_palette


def test_the_palette_is_the_devkits():
    palette = voc_palette()
    assert palette[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert palette[15].tolist() == [192, 128, 128]  # person
    assert palette[20].tolist() == [0, 64, 128]  # tvmonitor
    assert palette[255].tolist() == [224, 224, 192]  # void


def test_ids_become_their_colours_and_void_has_one_too():
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    colors = colorize(ids, np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3]], np.uint8))
    assert colors[:, :, 0].tolist() == [[1, 2], [3, 224]]


def test_an_overlay_mixes_half_and_half_and_leaves_background_and_void():
    image = np.full((1, 3, 3), 100, np.uint8)
    ids = np.array([[0, 1, 255]], np.uint8)
    mixed = overlay(image, ids, voc_palette())
    assert mixed[0].tolist() == [[100, 100, 100], [114, 50, 50], [100, 100, 100]]


def test_written_pictures_read_back_as_ids(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    write_ids(tmp_path / "a.png", ids)
    write_palette(tmp_path / "b.png", ids, voc_palette(3))
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), ids)
    picture = Image.open(tmp_path / "b.png")
    assert picture.mode == "P" and np.array_equal(np.array(picture), ids)
    assert picture.getpalette()[3:6] == [128, 0, 0]
