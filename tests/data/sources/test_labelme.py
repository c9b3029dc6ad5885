"""LabelMe's files; the masks in `labelme/` were made of the annotations there by LabelMe 6.3.1."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.datamodule import SegDataModule
from src.data.preparation.problem import Problem
from src.data.sources.annotations import VOID, LabelIds
from src.data.sources.labelme import LabelmeAnnotation, LabelmeSource
from src.utils.errors import UserError

FILES = sorted((Path(__file__).parent / "labelme").glob("*.json"))
NAMES = ("_background_", "cat", "dog")


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


def write(path, shapes, size=(60, 80), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"shapes": shapes, "imagePath": f"{path.stem}.png", "imageData": None}
    path.write_text(json.dumps({**content, "imageHeight": size[0], "imageWidth": size[1], **more}))
    return path


def draw(tmp_path, *shapes, size=(60, 80), **ids):
    path = write(tmp_path / "a.json", list(shapes), size)
    return LabelmeAnnotation(path, LabelIds(NAMES, 0, **ids)).draw(size)


def picture(path, size=(60, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shapes_cover_the_pixels_that_labelme_gives_them(file):
    drawn = LabelmeAnnotation(file, LabelIds(NAMES, 0)).draw((60, 80))
    np.testing.assert_array_equal(drawn, np.array(Image.open(file.with_suffix(".png"))))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_installed_labelme_gives_the_same_masks(file):
    utils = pytest.importorskip("labelme.utils")
    shapes = json.loads(file.read_text())["shapes"]
    for each in shapes:
        if each["mask"]:
            each["mask"] = utils.img_b64_to_arr(each["mask"]).astype(bool)
    numbers = {"__ignore__": VOID, **{name: i for i, name in enumerate(NAMES)}}
    expected = utils.shapes_to_label((60, 80), shapes, numbers)[0]
    drawn = LabelmeAnnotation(file, LabelIds(NAMES, 0)).draw((60, 80))
    np.testing.assert_array_equal(drawn, expected)


def test_the_turns_of_a_linestrip_are_round(tmp_path):
    drawn = draw(tmp_path, shape("cat", [[20, 50], [40, 20], [60, 50]], "linestrip")) == 1
    assert drawn[16, 40] and not drawn[14, 40]  # a disc about the turn, 10 pixels wide


def test_void_and_skipped_labels(tmp_path):
    square = [[10, 10], [30, 10], [30, 30], [10, 30]]
    unsure, box = shape("unsure", square), shape("box", square, "pyramid")
    drawn = draw(tmp_path, shape("cat", [[0, 0], [79, 59]], "rectangle"), unsure, box,
                 void=("unsure",), skipped=("box",))  # fmt: skip
    assert (drawn == VOID).sum() == 21 * 21 and (drawn == 1).sum() == 60 * 80 - 21 * 21


def test_a_mask_at_corners_between_pixels_keeps_its_size_and_is_cut_at_the_image(tmp_path):
    stored = json.loads(next(f for f in FILES if f.stem == "mask").read_text())["shapes"][1]
    whole = draw(tmp_path, {**stored, "points": [[25.4, 19.6], [45.4, 33.6]]})
    cut = draw(tmp_path, {**stored, "points": [[-5, -5], [15, 9]]})
    assert (whole == 2).sum() == 199  # of the 21×15 patch, as in mask.png
    np.testing.assert_array_equal(cut[:10, :16], whole[25:35, 30:46])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (shape("catt", [[1, 1], [9, 1], [9, 9]]), "'catt' is no class; did you mean 'cat'?"),
        (shape("cat", [[1, 1], [9, 1]]), "shape 1: a polygon of 2 points, expected 3"),
        (shape("cat", [[1, 1], [9, 1], [9, 9]], "rectangle"), "a rectangle of 3 points"),
        (shape("cat", [[1, 1]], "ellipse"), "shape_type 'ellipse', expected one of polygon"),
        (shape("cat", [[1, 1], [9, 1], [9, float("nan")]]), "no pairs of numbers"),
        (shape("cat", [[1, 1], [3, 3]], "mask", mask="AAAA"), "a mask that is no PNG"),
        ({"label": "cat", "shape_type": "polygon"}, "shape 1: 'points'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, wrong, message):
    with pytest.raises(Problem) as caught:
        draw(tmp_path, wrong)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "[]", '{"shapes": [1]}', "{}"])
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Problem, match="empty file|unreadable annotation"):
        LabelmeAnnotation(tmp_path / "a.json", LabelIds(NAMES, 0)).draw((4, 4))


def test_an_image_path_that_is_another_image_there_is_refused(tmp_path):
    picture(tmp_path / "b.png")
    path = write(tmp_path / "a.json", [], imagePath="b.png")
    with pytest.raises(Problem, match="its imagePath is b.png, which is there"):
        LabelmeAnnotation(path, LabelIds(NAMES, 0)).draw((60, 80))


def dataset(root, count=5):
    for i in range(count):
        picture(root / f"{i}.png")
        write(root / f"{i}.json", [shape("cat", [[10, 10], [30, 10], [30, 30]])])
    return root


def module(root, tmp_path, class_names=None, **source):
    def make(root):
        return LabelmeSource(root, class_names=class_names, **source)

    return SegDataModule(root, make, tmp_path / "prepared", class_names=class_names)


def test_images_and_their_json_files_become_labels(tmp_path):
    data = module(dataset(tmp_path / "raw"), tmp_path, ["background", "cat"])
    reports = data.prepare("train", "val")
    assert [reports[split]["count"] for split in ("train", "val")] == [4, 1]
    label = data.eval_samples("val")[0].label
    assert label[15, 25] == 1 and label[0, 0] == 0 and set(np.unique(label)) == {0, 1}


def test_other_shapes_or_another_order_of_the_classes_are_converted_anew(tmp_path):
    root = dataset(tmp_path / "raw", 2)
    write(root / "train.json", [])  # without an image
    (root / "train.txt").write_text("0\n1\n")

    def classes(names):
        return [row["pixels"] for row in
                module(root, tmp_path, names).prepare("train")["train"]["classes"]]  # fmt: skip

    background, cat = classes(["background", "cat"])
    assert classes(["cat", "background"]) == [cat, background]
    write(root / "0.json", [])
    assert classes(["background", "cat"]) == [background + cat // 2, cat // 2]


def test_labels_txt_of_labelme_names_the_classes(tmp_path):
    root = dataset(tmp_path / "raw")
    (root / "labels.txt").write_text("__ignore__\n_background_\ncat\n")
    source = LabelmeSource(root)
    assert source.class_names == ("_background_", "cat")
    assert len(source.samples("train")) == 4


def test_where_nothing_names_the_classes_the_labels_found_are_told(tmp_path):
    root = dataset(tmp_path / "raw")
    write(
        root / "0.json", [shape("dog", [[1, 1]], "point"), shape("__ignore__", [[1, 1]], "point")]
    )
    with pytest.raises(UserError, match=r"=\[background,cat,dog\]' .*cat in 4, dog in 1"):
        module(root, tmp_path)


def test_images_without_a_file_are_left_out_unless_listed(tmp_path, caplog):
    root = dataset(tmp_path / "raw", 4)
    picture(root / "new.png")
    source = LabelmeSource(root, ["background", "cat"])
    found = [s.name for split in ("train", "val") for s in source.samples(split)]
    assert sorted(found) == ["0", "1", "2", "3"]
    assert "left out, without a JSON file: new" in caplog.text
    (root / "train.txt").write_text("0\nnew\n")
    with pytest.raises(UserError, match="1 of 2 samples have no label file: new"):
        source.samples("train")


@pytest.mark.parametrize("layout", ["{split}", "images/{split}"])
def test_folders_of_a_split_are_its_samples(tmp_path, layout):
    for split in ("train", "val"):
        dataset(tmp_path / layout.format(split=split), 2)
    source = LabelmeSource(tmp_path, ["background", "cat"])
    assert [len(source.samples(split)) for split in ("train", "val")] == [2, 2]


def test_annotations_may_lie_in_a_folder_of_their_own(tmp_path):
    root = dataset(tmp_path / "raw", 3)
    (root / "annotations").mkdir()
    for path in root.glob("*.json"):
        shutil.move(path, root / "annotations")
    assert len(LabelmeSource(root, ["background", "cat"]).samples("train")) == 2


def test_what_pixels_without_a_shape_are_is_settled(tmp_path):
    root = dataset(tmp_path / "raw", 2)
    with pytest.raises(UserError, match="of the class background, which is not among the classes"):
        LabelmeSource(root, ["cat", "dog"]).samples("train")
    with pytest.raises(UserError, match="did you mean 'dog'"):
        LabelmeSource(root, ["cat", "dog"], unlabeled="dogs").samples("train")
    for unlabeled, number in {"void": VOID, "dog": 1}.items():
        (sample,) = LabelmeSource(root, ["cat", "dog"], unlabeled=unlabeled).samples("train")
        assert sample.label.draw((60, 80))[0, 0] == number


def test_a_label_that_is_a_class_and_void_is_refused(tmp_path):
    source = LabelmeSource(dataset(tmp_path), ["background", "cat"], void_labels=["cat"])
    with pytest.raises(UserError, match="dataset.source.void_labels: cat is a class, too"):
        source.samples("train")


def test_an_annotation_of_another_size_is_refused(tmp_path):
    root = dataset(tmp_path / "raw", 2)
    for path in root.glob("*.json"):
        write(path, [], size=(30, 40))
    with pytest.raises(UserError, match="image 60×80, label 30×40"):
        module(root, tmp_path, ["background", "cat"]).prepare("train")
