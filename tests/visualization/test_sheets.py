"""Contact sheets: the colours in the written PNG, at known places."""

import numpy as np
from PIL import Image

from src.utils.palette import voc_palette
from src.visualization.sheets import (
    WRONG,
    Case,
    Classes,
    Crop,
    Sheet,
    draw_cases,
    draw_crops,
    error_map,
    legend_entries,
)

CLASSES = Classes(("ground", "square"), np.array([[0, 0, 0], [10, 200, 30]], np.uint8))
TOP_LEFT = (96, 24)  # of the first tile of a sheet of cases
COLUMN = 300 + 10  # from tile to tile


def pixels(path):
    return np.array(Image.open(path).convert("RGB"))


def quartered(a, b, c, d):
    """A 240×300 map of four blocks: no scaling on a sheet."""
    return np.kron(np.array([[a, b], [c, d]], np.uint8), np.ones((120, 150), np.uint8))


def test_what_is_pasted_is_in_the_png_pixel_for_pixel(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    sheet = Sheet(200, 100)
    sheet.paste(array, 30, 20)
    sheet.text("below $x$", 30, 70)
    sheet.save(tmp_path / "a.png")
    saved = pixels(tmp_path / "a.png")
    assert saved.shape == (100, 200, 3)
    assert np.array_equal(saved[20:60, 30:80], array)
    assert saved[0, 0].tolist() == [255, 255, 255] and (saved[68:90, 30:100] < 128).any()


def test_errors_are_red_ignored_is_white_and_the_rest_faded():
    image = np.full((1, 4, 3), 100, np.uint8)
    case = Case("a", image, np.uint8([[0, 1, 255, 0]]), np.uint8([[0, 0, 1, 1]]), "")
    assert error_map(case, 255)[0].tolist() == [[185] * 3, list(WRONG), [255] * 3, list(WRONG)]


def test_image_label_prediction_and_errors_lie_side_by_side(tmp_path):
    image = np.zeros((240, 300, 3), np.uint8)
    image[:] = (200, 40, 20)
    label, pred = quartered(0, 1, 255, 1), quartered(0, 0, 1, 1)
    draw_cases(tmp_path / "a.png", [Case("a", image, label, pred, "")], CLASSES, "Cases", "run")
    saved = pixels(tmp_path / "a.png")
    top, left = TOP_LEFT

    def corners(column):
        lines = (top + 60, top + 180)
        places = [left + column * COLUMN + x for x in (75, 225)]
        return [saved[y, x].tolist() for y in lines for x in places]

    assert corners(0) == [[200, 40, 20]] * 4  # red stays red
    assert corners(1) == [[0, 0, 0], [10, 200, 30], [224, 224, 192], [10, 200, 30]]
    assert corners(2) == [[0, 0, 0], [0, 0, 0], [10, 200, 30], [10, 200, 30]]
    assert corners(3)[1] == list(WRONG) and corners(3)[2] == [255] * 3
    assert corners(3)[0] == corners(3)[3] != [255] * 3


def test_images_of_differing_size_share_a_sheet(tmp_path):
    cases = [
        Case(str(h), np.zeros((h, w, 3), np.uint8), *np.zeros((2, h, w), np.uint8), "")
        for h, w in ((33, 500), (500, 33), (1, 1))
    ]
    draw_cases(tmp_path / "a.png", cases, CLASSES, "Cases", "run")
    assert pixels(tmp_path / "a.png").shape[1] == 2 * 24 + 4 * 300 + 3 * 10


def test_windows_show_padding_striped_ignored_dotted_and_classes_half_clear(tmp_path):
    image = np.zeros((190, 190, 3), np.uint8)
    image[:] = (200, 40, 20)
    label = np.zeros((190, 190), np.uint8)
    label[:50], label[50:100], label[150:] = 1, 255, 255
    padding = [(slice(150, 190), slice(None)), (slice(0, 150), slice(190, 190))]
    draw_crops(tmp_path / "a.png", [Crop("a", image, label, padding)], CLASSES, "Crops", "")
    saved = pixels(tmp_path / "a.png")
    plain, labelled = saved[80:270, 24:214], saved[80:270, 216:406]
    assert (plain[:150] == (200, 40, 20)).all()
    assert labelled[10, 10].tolist() == [105, 120, 25]  # half red image, half green class
    assert labelled[120, 10].tolist() == [200, 40, 20]  # black classes stay clear
    dots = {tuple(c) for c in labelled[50:100].reshape(-1, 3).tolist()}
    assert dots == {(224, 224, 192), (200, 40, 20)}
    for tile in (plain, labelled):
        assert {tuple(c) for c in tile[150:].reshape(-1, 3).tolist()} == {(205,) * 3, (235,) * 3}


def test_the_legend_names_void_if_it_occurs_and_of_many_classes_those_that_occur():
    assert legend_entries(CLASSES, {0, 255}) == [
        ("ground", (0, 0, 0)), ("square", (10, 200, 30)), ("ignored", (224, 224, 192)),
    ]  # fmt: skip
    many = Classes([f"c{i}" for i in range(60)], voc_palette(60))
    assert [name for name, _ in legend_entries(many, {1, 59})] == ["c1", "c59"]
