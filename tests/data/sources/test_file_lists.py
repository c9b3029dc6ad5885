"""Split lists and pairs: what is listed is what is taken, or refused."""

import shutil
from unicodedata import normalize

import pytest

from src.data.sources.file_lists import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    Entry,
    index_files,
    pair,
    read_list,
)
from src.data.sources.folder import FolderSource
from src.utils.errors import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.fixture
def root(tmp_path):
    """Images a and b; for each a label in masks, and other ones in fixed."""
    for name in "ab":
        touch(tmp_path, f"images/{name}.jpg", f"masks/{name}.png", f"fixed/{name}_label.png")
    return tmp_path


def listed(root, *lines, newline="\n"):
    content = newline.join(lines) + newline
    (root / "train.txt").write_bytes(content.encode())
    samples = FolderSource(root).samples("train")
    return [
        (s.name, str(s.image.relative_to(root)), str(s.label.relative_to(root))) for s in samples
    ]


def refused(root, *lines):
    with pytest.raises(UserError) as caught:
        listed(root, *lines)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "images/a.jpg fixed/a_label.png",
        "images/a.jpg\tfixed/a_label.png",
        "images/a.jpg   fixed/a_label.png",
        "images/a.jpg \t fixed/a_label.png\t",
        "a fixed/a_label.png",
        "a.jpg fixed/a_label.png",
        "./images/a.jpg ./fixed/a_label.png",
        "/images/a.jpg /fixed/a_label.png",
        "/home/other/data/images/a.jpg /home/other/data/fixed/a_label.png",
        "images\\a.jpg fixed\\a_label.png",
        "D:\\data\\images\\a.jpg D:\\data\\fixed\\a_label.png",
    ],
)
def test_an_image_and_its_label_on_a_line_are_that_pair(root, line):
    assert listed(root, line) == [("a", "images/a.jpg", "fixed/a_label.png")]


def test_absolute_paths_are_taken_as_they_are_also_outside_of_the_root(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    touch(other, "images/a.jpg", "masks/a.png")
    (root / "train.txt").write_text(f"{other}/images/a.jpg {other}/masks/a.png\n")
    (sample,) = FolderSource(root).samples("train")
    assert (sample.image, sample.label) == (other / "images/a.jpg", other / "masks/a.png")


def test_lines_of_all_kinds_stand_beside_each_other(root):
    lines = ["# train", "", "   ", "\t#b masks/b.png", "a", "images/b.jpg fixed/b_label.png"]
    expected = [("a", "images/a.jpg", "masks/a.png"), ("b", "images/b.jpg", "fixed/b_label.png")]
    assert listed(root, *lines, newline="\r\n") == expected


def test_a_folder_of_labels_that_are_all_listed_may_have_any_name(root):
    shutil.rmtree(root / "masks")
    assert listed(root, "a fixed/a_label.png")[0][2] == "fixed/a_label.png"
    assert "no folder SegmentationClass or masks" in refused(root, "a fixed/a_label.png", "b")


def test_names_may_hold_blanks(root):
    touch(root, "images/weed (1).jpg", "fixed/weed (1).png", "masks/weed (1).png")
    pair_of_it = ("weed (1)", "images/weed (1).jpg", "fixed/weed (1).png")
    assert listed(root, "images/weed (1).jpg fixed/weed (1).png") == [pair_of_it]
    assert listed(root, "images\\weed (1).jpg\tfixed\\weed (1).png") == [pair_of_it]
    assert listed(root, "weed (1)")[0][2] == "masks/weed (1).png"


def test_a_line_that_fits_in_two_ways_is_refused_and_a_tab_settles_it(root):
    touch(root, "images/a b.jpg", "b c/d.png", "c/d.png")
    assert "'a b c/d.png' can be read in two ways; put a tab" in refused(root, "a b c/d.png")
    assert listed(root, "a\tb c/d.png")[0][1:] == ("images/a.jpg", "b c/d.png")
    assert listed(root, "a b\tc/d.png")[0][1:] == ("images/a b.jpg", "c/d.png")


@pytest.mark.parametrize("line", ["a.jpg fixed/a_label.png 1", "a.jpg\tfixed/a_label.png\t1"])
def test_more_columns_are_refused_with_the_first_such_line(root, line):
    message = refused(root, "b", line, line)
    assert f"train.txt: 3 columns in the line '{line}'; expected a name, or" in message


@pytest.mark.parametrize("label", ["1", "none/a.png", "images/none/a.png"])
def test_a_label_that_is_not_there_is_never_replaced_by_another(root, label):
    message = refused(root, f"images/a.jpg {label}")
    assert f"lists a label {label}, which is not below {root}" in message


def test_an_image_of_another_folder_is_never_replaced_by_one_of_its_name(root):
    assert "1 of 1 samples have no image file: elsewhere/a.jpg" in refused(root, "elsewhere/a.jpg")


def test_of_a_line_whose_image_is_missing_the_label_is_not_taken_for_one(root):
    assert "no image file: images/none.jpg masks/a.png" in refused(
        root, "images/none.jpg masks/a.png"
    )


def test_images_of_one_name_in_several_folders_are_told_apart(root):
    touch(root, "images/x/1.jpg", "images/y/1.jpg", "masks/x/1.png", "masks/y/1.png")
    lines = ["images/x/1.jpg masks/x/1.png", "images/y/1.jpg masks/y/1.png"]
    assert [name for name, *_ in listed(root, *lines)] == ["x/1", "y/1"]
    assert "names listed twice" in refused(root, lines[0], lines[0])


@pytest.mark.parametrize("forms", ["NFC NFD", "NFD NFC", "NFC NFC"])
def test_names_of_another_unicode_form_are_the_same_names(root, forms):
    of_list, of_file = forms.split()
    name = normalize(of_file, "Bäume")
    touch(root, f"images/{name}.jpg", f"masks/{normalize(of_list, 'Bäume')}.png")
    for line in ("Bäume", "images/Bäume.jpg"):
        (sample,) = listed(root, normalize(of_list, line))
        assert sample[1] == f"images/{name}.jpg" and sample[2].startswith("masks/B")


def test_two_files_whose_names_differ_in_unicode_form_alone_are_refused(root):
    touch(root, *(f"images/{normalize(form, 'Bäume')}.jpg" for form in ("NFC", "NFD")))
    assert "differ in the extension or the Unicode form alone" in refused(root, "Bäume")


def test_names_that_differ_in_case_are_not_the_same_but_told(root):
    touch(root, "images/C.jpg", "masks/c.png")
    assert "no label file: C (is it masks/c.png? Then rename" in refused(root, "C")
    touch(root, "images/c.jpg", "masks/C.png")
    assert [label for *_, label in listed(root, "c", "C")] == ["masks/C.png", "masks/c.png"]


@pytest.mark.parametrize("name", ["a_segmentation", "mask_of_a", "leftImg8bit_a_gtFine"])
def test_a_near_name_is_told_and_the_repair_is_right(root, name):
    (root / "masks/a.png").rename(root / f"masks/{name}.png")
    message = refused(root, "a")
    assert f"(is it masks/{name}.png? Then rename the files, or list both files of a" in message
    assert listed(root, f"a masks/{name}.png")[0][2] == f"masks/{name}.png"


def test_a_file_of_an_unread_kind_is_named_as_such(root):
    touch(root, "images/c.jpg", "masks/c.npy")
    assert "c.npy is there, but .npy files are not read" in refused(root, "c")
    touch(root, "other/c.npy")
    with pytest.raises(UserError, match=r"other: holds no files .*\.png.*; there: \*\.npy"):
        index_files(root / "other", LABEL_SUFFIXES)


def test_a_folder_without_images_says_what_is_there(tmp_path):
    touch(tmp_path, "images/train/a.jpg", "images/test/b.jpg", "images/.hidden.jpg")
    with pytest.raises(UserError, match="holds no files .*; there: folder test, folder train"):
        index_files(tmp_path / "images", IMAGE_SUFFIXES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds no files \.jpg .*\.ppm$"):
        index_files(tmp_path / "empty", IMAGE_SUFFIXES)


def test_many_lines_are_read_fast(root):
    images = {f"{i:05}": [root / f"images/{i:05}.jpg"] for i in range(10_000)}
    labels = {name: [root / f"masks/{name}.png"] for name in images}
    (root / "train.txt").write_text("\n".join(images))
    entries = read_list(root / "train.txt", root, images)
    assert entries == [Entry(name) for name in images]
    assert len(pair(entries, images, labels, root)) == 10_000
