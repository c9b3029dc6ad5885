import math

import pytest

from src.data.preparation.class_weights import class_weights, log_frequency, median_frequency
from src.utils.errors import UserError


def row(pixels: int, image_pixels: int) -> dict:
    return {"pixels": pixels, "image_pixels": image_pixels, "share": pixels / 1000}


def test_median_frequency_takes_the_share_in_the_images_that_hold_a_class():
    # f: 600/1000, 300/1000, 100/200 though a tenth of all; the median is 0.5
    classes = [row(600, 1000), row(300, 1000), row(100, 200)]
    assert median_frequency(classes) == pytest.approx([0.5 / 0.6, 0.5 / 0.3, 1])


def test_a_class_without_a_pixel_weighs_nothing_and_stays_out_of_the_median():
    # f: 0.9 and 0.2; the median 0.55
    classes = [row(900, 1000), row(0, 0), row(100, 500)]
    assert median_frequency(classes) == pytest.approx([0.55 / 0.9, 0, 0.55 / 0.2])


def test_log_frequency_is_enets():
    classes = [row(980, 1000), row(20, 1000), row(0, 0)]
    expected = [1 / math.log(2), 1 / math.log(1.04), 1 / math.log(1.02)]
    assert log_frequency(classes) == pytest.approx(expected)
    assert log_frequency(classes)[2] == pytest.approx(50.5, abs=0.01)


def test_an_unknown_rule_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"loss\.class_weights=median.*mean 'median_frequency'"):
        class_weights("loss.class_weights", "median_freq", [])
