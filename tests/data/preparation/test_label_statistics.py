import io

import numpy as np
from rich.console import Console

from src.data.preparation.label_statistics import report_table
from tests.data.samples import convert, picture


def test_the_report_counts_pixels_images_and_sizes(folder, out):
    folder.add(
        "a", picture(2, 4), np.array([[0, 0, 1, 255]] * 2, np.uint8)
    )  # 4 of 0, 2 of 1, 2 void
    folder.add("b", picture(3, 2), np.zeros((3, 2), np.uint8))  # 6 of 0
    folder.add("c", picture(3, 2), np.full((3, 2), 255, np.uint8))  # 6 void
    report = convert(folder, out).report
    assert (report["split"], report["count"], report["distinct_sizes"]) == ("train", 3, 2)
    assert report["height"] == {"min": 2, "median": 3.0, "max": 3}
    assert report["width"] == {"min": 2, "median": 2.0, "max": 4}
    assert report["classes"] == [
        {"pixels": 10, "share": 10 / 12, "images": 2, "image_pixels": 12},
        {"pixels": 2, "share": 2 / 12, "images": 1, "image_pixels": 6},
        {"pixels": 0, "share": 0.0, "images": 0, "image_pixels": 0},
    ]
    assert (report["ignored_pixels"], report["ignored_share"]) == (8, 8 / 20)
    assert report["warnings"] == ["labels without a valid pixel: c", "classes without a pixel: 2"]


def test_a_class_that_is_ignored_is_not_counted(folder, out):
    folder.add("a", picture(1, 4), np.array([[0, 0, 1, 2]], np.uint8))
    report = convert(folder, out, ignore_index=0).report
    assert [c["pixels"] for c in report["classes"]] == [0, 1, 1]
    assert report["ignored_share"] == 0.5
    assert report["warnings"] == []


def test_ids_that_may_start_at_1_are_told(folder, out):
    folder.add("a", picture(1, 2), np.array([[1, 2]], np.uint8))
    warnings = ["classes without a pixel: 0", "if ids start at 1, set dataset.source.ids=[1,2,3]"]
    assert convert(folder, out).report["warnings"] == warnings
    assert convert(folder, out, ids=(0, 1, 2)).report["warnings"] == warnings[:1]


def test_the_table_shows_classes_sizes_and_warnings(folder, out):
    folder.add("a", picture(1, 4), np.array([[0, 0, 1, 255]], np.uint8))
    table = report_table(convert(folder, out).report, ["sky", "[red]car", "tree"])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    for part in (
        "train: 1 images, 25.0%",
        "height 1, width 4",
        "[red]car",
        "66.67%",
        "without a pixel: 2",
    ):
        assert part in text
