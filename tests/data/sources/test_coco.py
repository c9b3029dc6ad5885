"""COCO's instances files, compared with pycocotools' own drawing of one annotation."""

import json

import numpy as np
import pytest
from PIL import Image

from src.data.datamodule import SegDataModule
from src.data.preparation.problem import Problem
from src.data.sources.annotations import VOID
from src.data.sources.coco import CocoSource
from src.utils.errors import UserError

SIZE = (60, 80)
CATEGORIES = [{"id": 17, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 90, "name": "unused"}]
HOLE = np.zeros(SIZE, np.uint8)
HOLE[10:40, 20:60], HOLE[20:30, 30:50] = 1, 0
CROWD = np.zeros(SIZE, np.uint8)
CROWD[30:, :40] = 1


@pytest.fixture(autouse=True)
def masks():
    return pytest.importorskip("pycocotools.mask")


def runs(mask):
    """COCO's uncompressed run-length code: columns first, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    return {"size": list(mask.shape), "counts": counts}


def annotation(category, segmentation, image=1, **more):
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation,
            "iscrowd": 0, **more}  # fmt: skip


def polygon(*numbers):
    return [list(numbers)]


def write(root, annotations, split="train", names=("a.png",), file=None, categories=CATEGORIES):
    images = [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
              for i, name in enumerate(names, 1)]  # fmt: skip
    for i, each in enumerate(annotations, 1):
        each["id"] = i
    file = root / (file or f"annotations/instances_{split}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content))
    return file


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / name)


def drawn(root, annotations, categories=CATEGORIES, **more):
    write(root, annotations, categories=categories)
    pictures(root / "images", "a.png")
    (sample,) = CocoSource(root, **more).samples("train")
    return sample.label.draw(SIZE)


def cases(masks):
    return {
        "polygon": [annotation(17, polygon(5.2, 6.7, 40.9, 4.1, 44.5, 33.3, 12.4, 50.6))],
        "parts": [annotation(3, [[5, 5, 20, 5, 20, 20], [40, 30, 70, 32, 60, 55, 41, 50]])],
        "outside": [annotation(3, polygon(-9, -5, 30, -8, 25.5, 22, 90, 70))],
        "run lengths": [annotation(17, runs(HOLE))],
        "compressed": [annotation(17, {**masks.encode(np.asfortranarray(HOLE)), "size": SIZE})],
        "overlap": [annotation(17, runs(HOLE)), annotation(3, polygon(25, 5, 70, 25, 25, 45))],
    }


@pytest.mark.parametrize("case", cases(pytest.importorskip("pycocotools.mask")))
def test_annotations_cover_the_pixels_that_pycocotools_gives_them(tmp_path, masks, case):
    from pycocotools.coco import COCO

    annotations = cases(masks)[case]
    for each in annotations:
        if "counts" in each["segmentation"] and isinstance(each["segmentation"]["counts"], bytes):
            each["segmentation"]["counts"] = each["segmentation"]["counts"].decode()
    found = drawn(tmp_path, annotations)
    coco = COCO(tmp_path / "annotations/instances_train.json")
    expected = np.zeros(SIZE, np.uint8)
    for each in coco.loadAnns(coco.getAnnIds(imgIds=1)):
        expected[coco.annToMask(each) == 1] = {17: 1, 3: 2}[each["category_id"]]
    np.testing.assert_array_equal(found, expected)


def test_run_lengths_may_have_holes(tmp_path):
    np.testing.assert_array_equal(drawn(tmp_path, [annotation(17, runs(HOLE))]), HOLE)


@pytest.mark.parametrize(("overlap", "number"), [("later", 2), ("smaller", 1), ("void", VOID)])
def test_what_counts_where_annotations_overlap(tmp_path, overlap, number):
    small, large = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
    small[10:20, 10:20] = 1
    both = [annotation(17, runs(small)), annotation(3, runs(large))]
    found = drawn(tmp_path, both, overlap=overlap)
    assert (found[small == 1] == number).all() and (found[small == 0] == 2).all()


def test_crowds_are_void_but_for_what_is_annotated_in_them(tmp_path):
    found = drawn(tmp_path, [annotation(17, runs(HOLE)), annotation(17, runs(CROWD), iscrowd=1)])
    np.testing.assert_array_equal(found, np.where(HOLE == 1, 1, np.where(CROWD == 1, VOID, 0)))


def test_classes_are_the_background_and_the_categories_of_the_file(tmp_path):
    write(tmp_path, [])
    assert CocoSource(tmp_path).class_names == ("background", "cat", "dog", "unused")
    assert CocoSource(tmp_path, unlabeled="void").class_names == ("cat", "dog", "unused")
    skipping = CocoSource(tmp_path, skipped_labels=["unused"], void_labels=["dog"])
    assert skipping.class_names == ("background", "cat")
    assert CocoSource(tmp_path, class_names=["background", "dog"]).class_names[1] == "dog"


def test_configured_classes_decide_on_ids(tmp_path):
    names = ["dog", "cat", "background"]
    found = drawn(tmp_path, [annotation(17, runs(HOLE))], class_names=names)
    np.testing.assert_array_equal(found, np.where(HOLE == 1, 1, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (annotation(17, []), "annotation 1 of a.png: no segmentation, a box at most"),
        (annotation(17, polygon(1, 1, 5, 5)), "no list of three points"),
        (annotation(17, {"size": [2, 2], "counts": [4]}), "a mask of [2, 2] in an image of"),
        (annotation(5, runs(HOLE)), "no category of the id 5"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, wrong, message):
    with pytest.raises(Problem) as caught:
        drawn(tmp_path, [wrong])
    assert message in str(caught.value)


def test_a_category_that_is_no_class_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(Problem, match="'cat' is no class; did you mean 'cats'"):
        drawn(tmp_path, [annotation(17, runs(HOLE))], class_names=["background", "cats"])


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_{}.json", "{}"),
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/instances_{}.json", "images/{}"),
        ("{}/_annotations.coco.json", "{}"),
        ("{}.json", "images"),
    ],
)
def test_the_usual_layouts_are_found(tmp_path, file, images):
    for split in ("train", "val"):
        write(tmp_path, [], names=[f"{split}.png"], file=file.format(split))
        pictures(tmp_path / images.format(split), f"{split}.png")
    source = CocoSource(tmp_path)
    assert [s.image.name for split in ("train", "val") for s in source.samples(split)] == [
        "train.png", "val.png"
    ]  # fmt: skip


def test_one_file_for_all_is_divided(tmp_path):
    names = [f"{i}/x.png" for i in range(5)]  # equal stems in folders
    write(tmp_path, [], names=names, file="annotations/instances_default.json")
    pictures(tmp_path / "images", *names)
    found = [[s.name for s in CocoSource(tmp_path).samples(split)] for split in ("train", "val")]
    assert list(map(len, found)) == [4, 1]
    assert sorted(found[0] + found[1]) == [f"{i}/x" for i in range(5)]


def test_a_split_without_a_file_is_not_taken_from_another_splits(tmp_path):
    write(tmp_path, [])
    pictures(tmp_path / "images", "a.png")
    with pytest.raises(UserError, match="no annotations/instances_.*instances_train.json"):
        CocoSource(tmp_path).samples("val")


def test_file_and_images_may_be_named(tmp_path):
    write(tmp_path, [], file="x/labels-train.json")
    pictures(tmp_path / "y/train", "a.png")
    named = {"instances": "x/labels-{split}.json", "image_dir": "y/{split}"}
    assert len(CocoSource(tmp_path, **named).samples("train")) == 1
    with pytest.raises(UserError, match=r"a.png, is in none of .*y;"):
        CocoSource(tmp_path, instances=named["instances"], image_dir="y").samples("train")


def test_images_without_annotations_are_background_and_changes_convert_anew(tmp_path):
    pictures(tmp_path / "images", "a.png", "b.png")

    def classes(annotations, **more):
        write(tmp_path, annotations, names=["a.png", "b.png"])
        data = SegDataModule(tmp_path, lambda root: CocoSource(root, **more), tmp_path / "prepared")
        return [row["pixels"] for row in data.prepare("train")["train"]["classes"]]

    whole, cat = 2 * SIZE[0] * SIZE[1], int(HOLE.sum())
    assert classes([annotation(17, runs(HOLE))]) == [whole - cat, cat, 0, 0]
    assert classes([annotation(3, runs(HOLE))]) == [whole - cat, 0, cat, 0]
    assert classes([annotation(3, runs(HOLE))], unlabeled="cat") == [whole - cat, cat, 0]


@pytest.mark.parametrize("text", ["[", "{}", '{"images": [], "annotations": [], "categories": []}'])
def test_a_file_that_is_none_of_cocos_is_refused(tmp_path, text):
    write(tmp_path, []).write_text(text)
    with pytest.raises(UserError, match="instances_train.json: (no instances file|lists no)"):
        CocoSource(tmp_path).samples("train")


def test_an_unknown_overlap_is_refused(tmp_path):
    with pytest.raises(UserError, match="overlap=first: expected one of later, smaller, void"):
        CocoSource(tmp_path, overlap="first")
