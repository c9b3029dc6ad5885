import logging
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from src.data.preparation.labels import LabelRules, read_label
from src.data.sources.voc import SBD_CHECKSUM, VOC_CHECKSUM, VocAugSource, VocSource
from src.utils.errors import UserError

# A miniature of the two datasets: SBD's lists cut across VOC's
VOC_TRAIN = ["t1", "t2", "t3"]
VOC_VAL = ["v1", "v2"]
SBD_TRAIN = ["t1", "v1", "s1", "s2"]
SBD_VAL = ["t2", "v2", "s3"]


def write_list(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def make_voc(folder):
    for name in VOC_TRAIN + VOC_VAL:
        touch(folder / "SegmentationClass" / f"{name}.png")
    for name in VOC_TRAIN + VOC_VAL + ["s1", "detection only"]:
        touch(folder / "JPEGImages" / f"{name}.jpg")
    for split, names in (("train", VOC_TRAIN), ("val", VOC_VAL), ("trainval", VOC_TRAIN + VOC_VAL)):
        write_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)
    return folder


def make_sbd(folder):
    (folder / "cls").mkdir(parents=True)
    for name in SBD_TRAIN + SBD_VAL:
        ids = np.full((2, 3), 7, np.uint8)
        savemat(folder / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": ids}})
        touch(folder / "img" / f"{name}.jpg")
    write_list(folder / "train.txt", SBD_TRAIN)
    write_list(folder / "val.txt", SBD_VAL)
    return folder


@pytest.fixture
def roots(tmp_path):
    make_voc(tmp_path / "voc" / "VOCdevkit" / "VOC2012")
    make_sbd(tmp_path / "sbd" / "benchmark_RELEASE" / "dataset")
    return tmp_path / "voc", tmp_path / "sbd"


def names(samples):
    return [sample.name for sample in samples]


@pytest.mark.parametrize("below", ["VOCdevkit/VOC2012", "VOC2012", "."])
def test_the_root_may_be_the_devkit_or_the_folder_of_the_year(tmp_path, below):
    folder = make_voc(tmp_path / below)
    source = VocSource(tmp_path)
    source.prepare()
    assert names(source.samples("trainval")) == ["t1", "t2", "t3", "v1", "v2"]
    assert source.samples("val")[0].label == folder / "SegmentationClass" / "v1.png"


def test_voc_without_its_lists_is_never_split_at_random(tmp_path):
    folder = make_voc(tmp_path)
    for path in (folder / "ImageSets" / "Segmentation").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"split 'train': .*lists: none"):
        VocSource(tmp_path).samples("train")


def test_an_absent_root_is_filled_from_the_archive(tmp_path):
    make_voc(tmp_path / "made" / "VOCdevkit" / "VOC2012")
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    with tarfile.open(tmp_path / "data" / "downloads" / "voc.tar", "w") as tar:
        tar.add(tmp_path / "made" / "VOCdevkit", "VOCdevkit")
    source = VocSource(
        tmp_path / "data" / "voc2012", "http://nowhere.invalid/voc.tar", checksum=None
    )
    source.prepare()
    assert names(source.samples("train")) == VOC_TRAIN


def test_a_root_with_something_else_is_refused_and_not_filled(tmp_path):
    touch(tmp_path / "notes.txt")
    source = VocSource(tmp_path)
    source.prepare()
    with pytest.raises(UserError, match="no folder JPEGImages in it; check dataset.root"):
        source.samples("train")


@pytest.mark.parametrize("split", ["train", "trainaug"])
def test_training_takes_all_of_sbd_but_vocs_val(roots, split):
    samples = VocAugSource(*roots).samples(split)
    assert names(samples) == ["s1", "s2", "s3", "t1", "t2", "t3"]
    files = {sample.name: (sample.image, sample.label) for sample in samples}
    voc, sbd = roots[0] / "VOCdevkit/VOC2012", roots[1] / "benchmark_RELEASE/dataset"
    assert files["t1"] == (voc / "JPEGImages/t1.jpg", voc / "SegmentationClass/t1.png")
    assert files["s3"] == (sbd / "img/s3.jpg", sbd / "cls/s3.mat")
    assert read_label(files["s3"][1], LabelRules(21)).ids.tolist() == [[7, 7, 7], [7, 7, 7]]


@pytest.mark.slow
def test_lists_of_the_published_sizes_give_10582(tmp_path, caplog):
    # Of SBD's 8498 + 2857 images, 6820 + 2298 are in neither of VOC's lists
    fresh = (f"{i:06}" for i in range(20_000))
    voc_train, voc_val, sbd_train, sbd_val = (
        [next(fresh) for _ in range(count)] for count in (1464, 1449, 6820, 2298)
    )
    shared = voc_train[:1100] + voc_val[:1137]
    sbd_train, sbd_val = sbd_train + shared[: 8498 - 6820], sbd_val + shared[8498 - 6820 :]
    assert (len(sbd_train), len(sbd_val)) == (8498, 2857)
    voc, sbd = tmp_path / "voc", tmp_path / "sbd"
    for folder in ("JPEGImages", "SegmentationClass"):
        (voc / folder).mkdir(parents=True)
        for name in voc_train + voc_val:
            (voc / folder / f"{name}.png").touch()
    for folder, suffix in (("img", "jpg"), ("cls", "mat")):
        (sbd / folder).mkdir(parents=True)
        for name in sbd_train + sbd_val:
            (sbd / folder / f"{name}.{suffix}").touch()
    write_list(voc / "train.txt", voc_train)
    write_list(voc / "val.txt", voc_val)
    write_list(sbd / "train.txt", sbd_train)
    write_list(sbd / "val.txt", sbd_val)
    samples = VocAugSource(voc, sbd).samples("train")
    assert len(samples) == 10_582 and not set(names(samples)) & set(voc_val)
    assert "usually" not in caplog.text


def test_counts_are_told_and_unusual_ones_warned_about(roots, caplog):
    with caplog.at_level(logging.INFO):
        VocAugSource(*roots).samples("train")
    assert "6 training samples, 2 in val, none in both" in caplog.text
    assert "usually has 10582 training samples and 1449 in val, here 6 and 2" in caplog.text


def test_other_splits_are_vocs(roots):
    source = VocAugSource(*roots)
    assert names(source.samples("val")) == VOC_VAL
    write_list(roots[0] / "VOCdevkit/VOC2012/seg11valid.txt", ["v2"])
    assert names(source.samples("seg11valid")) == ["v2"]


def test_a_users_trainaug_list_has_precedence(roots):
    path = roots[0] / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt"
    write_list(path, ["/JPEGImages/t1.jpg /SegmentationClassTuned/t1.png", "s3"])
    with pytest.raises(
        UserError, match="lists a label /SegmentationClassTuned/t1.png, which is not"
    ):
        VocAugSource(*roots).samples("train")
    tuned = roots[0] / "VOCdevkit/VOC2012/SegmentationClassTuned/t1.png"
    touch(tuned)
    samples = VocAugSource(*roots).samples("train")
    assert names(samples) == ["s3", "t1"] and samples[1].label == tuned


def test_a_users_list_that_overlaps_val_is_refused(roots):
    path = roots[0] / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt"
    write_list(path, ["t1", "v1", "s1"])
    with pytest.raises(UserError, match=r"trainaug\.txt: lists samples of VOC's val: v1; remove"):
        VocAugSource(*roots).samples("train")


def test_converted_labels_replace_sbd(roots, tmp_path):
    folder = roots[0] / "VOCdevkit/VOC2012"
    for name in ("t1", "v1", "s1"):
        touch(folder / "SegmentationClassAug" / f"{name}.png")
    source = VocAugSource(roots[0], tmp_path / "no sbd")
    source.prepare()
    samples = source.samples("train")
    assert names(samples) == ["s1", "t1", "t2", "t3"]
    assert [sample.label.parent.name for sample in samples] == [
        "SegmentationClassAug",
        *["SegmentationClass"] * 3,
    ]


def test_an_sbd_root_with_something_else_is_refused(roots, tmp_path):
    touch(tmp_path / "other" / "notes.txt")
    with pytest.raises(UserError, match=r"sbd_root=.*other: no cls in it"):
        VocAugSource(roots[0], tmp_path / "other").samples("train")


def test_the_official_archives_are_checked(roots):
    assert VOC_CHECKSUM == "md5:6cd6e144f989b92b3379bac3b3de84fd"
    assert SBD_CHECKSUM == "md5:82b4d87ceb2ed10f6038a1cba92111cb"
