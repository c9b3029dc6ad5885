"""Predictions as files: none takes another's place."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from src.engine.prediction import write_predictions
from src.predict import class_ids
from src.utils.errors import UserError


def test_images_whose_pictures_would_have_one_name_are_refused_before_any_is_made(tmp_path):
    files = [tmp_path / "a.jpg", tmp_path / "a_overlay.jpg"]
    with pytest.raises(UserError, match=r"a\.jpg and .*a_overlay\.jpg: both would give a_overlay"):
        write_predictions(None, files, None, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_overlays_show_the_chosen_classes_alone_at_the_opacity(tmp_path):
    """Ids 1 and 2 on grey 100: of 200 at a quarter 125, at which id 2 is not shown."""
    ids = np.array([[1, 2]], np.uint8)
    palette = np.array([[0, 0, 0], [200, 200, 200], [40, 40, 40]], np.uint8)
    segmenter = SimpleNamespace(predict=lambda image: ids)
    shown = {"shown": [1], "opacity": 0.25}
    write_predictions(
        segmenter,
        [tmp_path / "a.png"],
        lambda path: np.full((1, 2, 3), 100, np.uint8),
        tmp_path / "out",
        palette,
        **shown,
    )
    assert np.array(Image.open(tmp_path / "out/a_overlay.png"))[0, :, 0].tolist() == [125, 100]
    assert np.array(Image.open(tmp_path / "out/a.png")).tolist() == [[1, 2]]  # ids stay


def test_classes_are_chosen_by_name():
    assert class_ids(["car", "road"], ("road", "sky", "car")) == [2, 0]
    with pytest.raises(UserError, match="classes=cat: no class of that name.*known: road, car"):
        class_ids(["cat"], ("road", "car"))
