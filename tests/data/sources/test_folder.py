import logging

import numpy as np
import pytest

from src.data.sources.folder import FolderSource
from src.utils.errors import UserError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def make(root, names, images="images", labels="masks", suffix=".jpg"):
    touch(*(root / images / f"{name}{suffix}" for name in names))
    touch(*(root / labels / f"{name}.png" for name in names))
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")


def names(samples):
    return [sample.name for sample in samples]


@pytest.mark.parametrize("images", ["JPEGImages", "images"])
@pytest.mark.parametrize("labels", ["SegmentationClass", "masks", "labels"])
def test_finds_the_usual_folders_and_pairs_by_stem(tmp_path, images, labels):
    make(tmp_path, ["b", "a"], images, labels)
    write(tmp_path / "train.txt", "b\na\n")
    samples = FolderSource(tmp_path).samples("train")
    assert names(samples) == ["a", "b"]
    assert samples[0].image == tmp_path / images / "a.jpg"
    assert samples[0].label == tmp_path / labels / "a.png"


@pytest.mark.parametrize(
    "suffix", [".JPG", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"]
)
def test_takes_any_common_image_format(tmp_path, suffix):
    make(tmp_path, ["a.1"], suffix=suffix)
    write(tmp_path / "train.txt", "a.1")
    assert FolderSource(tmp_path).samples("train")[0].image.name == f"a.1{suffix}"


def test_any_split_is_the_list_of_its_name(tmp_path):
    make(tmp_path, ["a", "b", "c"])
    write(tmp_path / "ImageSets/Segmentation/train.txt", "a\n")
    write(tmp_path / "night.txt", "b\nc\n")
    source = FolderSource(tmp_path)
    assert names(source.samples("train")) == ["a"]
    assert names(source.samples("night")) == ["b", "c"]


@pytest.mark.parametrize(
    "line",
    [
        "frame 1.v2",
        "frame 1.v2  \t\r",
        "frame 1.v2.jpg",
        "images/frame 1.v2.jpg",
        "\ufeffframe 1.v2",
    ],
)
def test_list_lines_may_be_names_files_or_paths(tmp_path, line):
    make(tmp_path, ["frame 1.v2", "other"])
    write(tmp_path / "train.txt", f"{line}\n\nother\r\n")
    assert names(FolderSource(tmp_path).samples("train")) == ["frame 1.v2", "other"]


def test_reads_the_layout_of_segnets_camvid(tmp_path):
    for split, name in (("train", "x1"), ("val", "x2")):
        make(tmp_path, [name], split, f"{split}annot", ".png")
        pair = f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n"
        write(tmp_path / f"{split}.txt", pair)
    source = FolderSource(tmp_path, void_ids=[11])
    assert source.samples("val")[0].label == tmp_path / "valannot" / "x2.png"
    assert names(source.samples("train")) == ["x1"]
    assert source.void_ids == (11,)


def test_classes_txt_names_the_classes(tmp_path):
    make(tmp_path, ["a", "b"])
    assert FolderSource(tmp_path).class_names is None
    write(tmp_path / "classes.txt", "sky \r\n\ntraffic sign\n")
    assert FolderSource(tmp_path).class_names == ("sky", "traffic sign")


def test_without_lists_train_and_val_are_drawn_from_a_seed(tmp_path, caplog):
    make(tmp_path, [f"{i:02}" for i in range(20)])
    write(tmp_path / "README.txt", "About these images")
    with caplog.at_level(logging.INFO):
        train = names(FolderSource(tmp_path, val_fraction=0.25).samples("train"))
    val = names(FolderSource(tmp_path, val_fraction=0.25).samples("val"))
    assert (len(train), len(val)) == (15, 5) and sorted(train + val) == [
        f"{i:02}" for i in range(20)
    ]
    assert "no split lists: 15 train and 5 val samples drawn (split_seed=0" in caplog.text
    assert names(FolderSource(tmp_path, val_fraction=0.25).samples("val")) == val
    assert names(FolderSource(tmp_path, val_fraction=0.25, split_seed=1).samples("val")) != val


def test_drawn_samples_mostly_keep_their_split_when_others_are_added(tmp_path):
    make(tmp_path, [f"{i:02}" for i in range(20)])
    before = set(names(FolderSource(tmp_path).samples("val")))
    make(tmp_path, ["new"])
    assert len(before & set(names(FolderSource(tmp_path).samples("val")))) >= len(before) - 1


@pytest.mark.parametrize("layout", ["{part}/{split}", "{split}/{part}"])
def test_folders_named_by_a_split_are_the_splits(tmp_path, layout):
    for split, members in {"train": ["a", "b"], "val": ["c"], "night": ["d"]}.items():
        images, labels = (layout.format(part=p, split=split) for p in ("images", "masks"))
        make(tmp_path, members, images, labels)
    source = FolderSource(tmp_path)
    assert names(source.samples("train")) == ["a", "b"]
    assert names(source.samples("val")) == ["c"]
    assert names(source.samples("night")) == ["d"]
    assert source.samples("val")[0].label.relative_to(tmp_path).parts[-1] == "c.png"


def test_folders_of_other_splits_are_named(tmp_path):
    for split in ("training", "validation"):
        make(tmp_path, [split], f"images/{split}", f"masks/{split}")
    refused(FolderSource(tmp_path), "train", "there: folder training, folder validation")
    assert names(FolderSource(tmp_path).samples("training")) == ["training"]


def test_camvids_folders_without_lists_are_whole_splits(tmp_path):
    for split, count in (("train", 6), ("val", 3)):
        make(tmp_path, [f"{split}{i}" for i in range(count)], split, f"{split}annot", ".png")
    source = FolderSource(tmp_path)
    assert [len(source.samples(split)) for split in ("train", "val")] == [6, 3]


def refused(source, split, *parts):
    with pytest.raises(UserError) as error:
        source.samples(split)
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


def test_an_absent_root_says_where_to_get_the_dataset(tmp_path):
    source = FolderSource(tmp_path / "none", origin="https://host/camvid")
    refused(
        source, "train", f"dataset.root={tmp_path / 'none'}: no such folder", "https://host/camvid"
    )
    with pytest.raises(UserError, match="no such folder"):
        source.prepare()


def test_absent_folders_are_named_with_the_key(tmp_path):
    touch(tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.jpg")
    refused(
        FolderSource(tmp_path),
        "train",
        "no folder SegmentationClass or masks or labels or trainannot in it",
        "label_dir",
    )
    refused(
        FolderSource(tmp_path, image_dir="rgb"),
        "train",
        "no folder rgb",
        "dataset.source.image_dir",
    )


def test_an_unknown_split_lists_those_there(tmp_path):
    make(tmp_path, ["a", "b"])
    write(tmp_path / "train.txt", "a\n")
    write(tmp_path / "ImageSets/Segmentation/validation.txt", "b\n")
    write(tmp_path / "classes.txt", "sky\nroad\n")
    refused(
        FolderSource(tmp_path),
        "valid",
        "split 'valid'",
        "lists: train, validation",
        "did you mean 'val",
    )
    refused(FolderSource(tmp_path), "val", "split 'val'")


def test_without_lists_only_train_and_val_exist(tmp_path):
    make(tmp_path, ["a", "b"])
    refused(FolderSource(tmp_path), "test", "split 'test'", "lists: none")


def test_an_empty_list_and_too_few_images_to_split_are_refused(tmp_path):
    make(tmp_path / "listed", ["a"])
    write(tmp_path / "listed/ImageSets/Segmentation/train.txt", "\n \n")
    refused(FolderSource(tmp_path / "listed"), "train", "train.txt: no sample in it")
    make(tmp_path / "beside", ["a", "b"])
    write(tmp_path / "beside/train.txt", "")
    refused(FolderSource(tmp_path / "beside"), "train", "train.txt: no sample in it")
    make(tmp_path / "single", ["a"])
    refused(
        FolderSource(tmp_path / "single"),
        "train",
        "single: 1 image, which cannot be split",
        "two at least",
    )


def test_missing_files_of_a_list_are_named_and_counted(tmp_path):
    make(tmp_path, ["a"])
    touch(*(tmp_path / "images" / f"u{i}.jpg" for i in range(7)))
    write(tmp_path / "train.txt", "a\nu0\nu1\nu2\nu3\nu4\nu5\nu6\n")
    refused(
        FolderSource(tmp_path),
        "train",
        tmp_path / "train.txt",
        "7 of 8 samples have no label file: u0, u1, u2, u3, u4, … (7 in all)",
    )
    write(tmp_path / "train.txt", "a\nnone.jpg none.png\n")
    refused(FolderSource(tmp_path), "train", "1 of 2 samples have no image file: none")


def test_stems_that_two_files_share_are_refused(tmp_path):
    make(tmp_path, ["a", "b"])
    touch(tmp_path / "images" / "a.png", tmp_path / "images" / "._b.png")
    write(tmp_path / "train.txt", "a\nb\n")
    refused(
        FolderSource(tmp_path),
        "train",
        "image files that differ in the extension or the Unicode form alone: a.jpg, a.png",
    )


def test_a_name_listed_twice_is_refused(tmp_path):
    make(tmp_path, ["a", "b"])
    write(tmp_path / "train.txt", "a\nb\na\n")
    refused(FolderSource(tmp_path), "train", "names listed twice: a")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    make(tmp_path, ["a"])
    touch(tmp_path / "ImageSets/Segmentation/train.txt")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_bytes(b"\xff\xfea\x00")
    refused(FolderSource(tmp_path), "train", "train.txt: cannot be read as UTF-8")


def test_samples_in_both_train_and_val_are_warned_about(tmp_path, caplog):
    make(tmp_path, ["a", "b", "c"])
    write(tmp_path / "train.txt", "a\nb\n")
    write(tmp_path / "val.txt", "b\nc\n")
    FolderSource(tmp_path).samples("train")
    assert "in train and in val: b" in caplog.text


def test_a_palette_is_rows_of_distinct_colours(tmp_path):
    palette = FolderSource(tmp_path, palette=[[0, 0, 0], [255, 0, 9]]).palette
    assert palette.dtype == np.uint8 and palette.tolist() == [[0, 0, 0], [255, 0, 9]]
    for wrong in ([[0, 0, 256]], [[0, 0]], [[-1, 0, 0]], [], "red", [["a", "b", "c"]]):
        with pytest.raises(UserError, match="three numbers 0–255"):
            FolderSource(tmp_path, palette=wrong)
    with pytest.raises(UserError, match=r"\[1, 2, 3\] stands twice"):
        FolderSource(tmp_path, palette=[[1, 2, 3], [0, 0, 0], [1, 2, 3]])


@pytest.mark.parametrize("ids", [11, "11", [65536], ["11"]])
def test_void_ids_are_a_list_of_ids(tmp_path, ids):
    with pytest.raises(UserError, match="expected a list of numbers 0–65535"):
        FolderSource(tmp_path, void_ids=ids)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 20])
def test_the_val_fraction_is_a_fraction(tmp_path, fraction):
    with pytest.raises(UserError, match="between 0 and 1"):
        FolderSource(tmp_path, val_fraction=fraction)


def test_a_note_in_another_encoding_beside_the_images_is_no_list(tmp_path):
    make(tmp_path, ["a", "b", "c"])
    (tmp_path / "README.txt").write_bytes("für alle".encode("latin-1"))
    assert len(FolderSource(tmp_path).samples("train")) == 2


@pytest.mark.parametrize("folders", [(), ("notes",)])
def test_a_folder_without_images_is_told_as_such(tmp_path, folders):
    for name in folders:
        touch(tmp_path / name / "read.me")
    with pytest.raises(UserError, match="holds no images"):
        FolderSource(tmp_path).samples("train")
