"""Predictions as files: none takes another's place."""

import pytest

from src.engine.prediction import write_predictions
from src.utils.errors import UserError


def test_images_whose_pictures_would_have_one_name_are_refused_before_any_is_made(tmp_path):
    files = [tmp_path / "a.jpg", tmp_path / "a_overlay.jpg"]
    with pytest.raises(UserError, match=r"a\.jpg and .*a_overlay\.jpg: both would give a_overlay"):
        write_predictions(None, files, None, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
