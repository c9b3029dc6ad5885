import numpy as np
import pytest
from PIL import Image

from src.data.datamodule import SegDataModule
from src.data.sources.class_tables import read_class_table
from src.data.sources.folder import FolderSource
from src.utils.errors import UserError

LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
cat:250,50,83::
ignored:224,224,192::
dog:51,221,255:head,tail:run
"""


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def prepared(root, tmp_path, *splits):
    data = SegDataModule(root, FolderSource, tmp_path / "prepared")
    reports = data.prepare(*splits)
    return data, {split: [row["pixels"] for row in reports[split]["classes"]] for split in splits}


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_cvats_mask_export_is_read_by_its_colours(tmp_path, mode):
    root = tmp_path / "task"
    colors = {"a": (250, 50, 83), "b": (51, 221, 255), "c": (224, 224, 192)}
    for name, color in colors.items():
        mask = np.zeros((4, 6, 3), np.uint8)
        mask[1:3, 2:5] = color
        save(root / "JPEGImages" / f"{name}.png", np.zeros((4, 6, 3)))
        path = root / "SegmentationClass" / f"{name}.png"
        save(path, mask)
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(
            path
        ) if mode == "P" else ...
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("a\nb\nc\n")
    (root / "labelmap.txt").write_text(LABELMAP)
    data, pixels = prepared(root, tmp_path, "default")
    assert data.class_names == ("background", "cat", "dog")
    assert data.palette[:3].tolist() == [[0, 0, 0], [250, 50, 83], [51, 221, 255]]
    assert pixels["default"] == [3 * 18, 6, 6]


def test_cvats_list_of_all_samples_is_divided(tmp_path):
    for i in range(6):
        save(tmp_path / "JPEGImages" / f"{i}.png", np.zeros((4, 6, 3)))
        save(tmp_path / "SegmentationClass" / f"{i}.png", np.zeros((4, 6, 3)))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("0\n1\n2\n3\n4\n")
    found = [FolderSource(tmp_path).samples(split) for split in ("train", "val")]
    assert list(map(len, found)) == [4, 1]


def test_roboflows_mask_export_is_read_by_its_values(tmp_path):
    root = tmp_path / "set"
    for split in ("train", "valid"):
        mask = np.zeros((4, 6))
        mask[0], mask[1] = 1, 3
        save(root / split / "a_jpg.rf.1.jpg", np.zeros((4, 6, 3)))
        save(root / split / "a_jpg.rf.1_mask.png", mask)
        (root / split / "_classes.csv").write_text(
            'Pixel Value, Class\n0, background\n1, cat\n3, "dog, big"\n'
        )
    data, pixels = prepared(root, tmp_path, "train", "valid")
    assert data.class_names == ("background", "cat", "dog, big")
    assert pixels == {"train": [12, 6, 6], "valid": [12, 6, 6]}


def test_a_suffix_of_label_files_may_be_given(tmp_path):
    save(tmp_path / "images" / "a.jpg", np.zeros((4, 6, 3)))
    save(tmp_path / "images" / "a_seg.png", np.zeros((4, 6)))
    (tmp_path / "train.txt").write_text("a\n")
    (sample,) = FolderSource(tmp_path, label_suffix="_seg").samples("train")
    assert sample.label.name == "a_seg.png"
    with pytest.raises(UserError, match="no label file has _gt behind the name of an image"):
        FolderSource(tmp_path, label_suffix="_gt").samples("train")


def test_configured_colours_and_ids_have_precedence(tmp_path):
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    source = FolderSource(tmp_path, palette=[[1, 2, 3]], ids=[4])
    assert source.palette.tolist() == [[1, 2, 3]] and source.ids == (4,)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labelmap.txt", "cat:red::\n", "the line 'cat:red::'"),
        ("labelmap.txt", "cat:1,2,256::\n", "colours of 0 to 255"),
        ("labelmap.txt", "cat:1,2,3::\ndog:1,2,3::\n", "two classes of one colour"),
        ("train/_classes.csv", "Pixel Value, Class\nx, cat\n", "a pixel value and a class"),
        ("train/_classes.csv", "Pixel Value, Class\n0\n", "a pixel value and a class"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, file, text, message):
    (tmp_path / "train").mkdir()
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        read_class_table(tmp_path)


def test_splits_with_tables_that_differ_are_refused(tmp_path):
    for split, name in {"train": "cat", "valid": "dog"}.items():
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text(f"Pixel Value, Class\n0, b\n1, {name}\n")
    with pytest.raises(UserError, match="valid/_classes.csv: differs"):
        read_class_table(tmp_path)
