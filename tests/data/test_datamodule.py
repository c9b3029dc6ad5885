"""Batches that are the same for a seed and an epoch, whatever the workers."""

import functools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.data.datamodule import SegDataModule
from src.data.sources.folder import FolderSource
from src.data.sources.records import RecordSource
from src.data.sources.voc import VocSource
from src.utils.errors import UserError
from src.utils.normalization import IMAGENET_RGB, TUTORIAL_BGR

COUNT = 7


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Seven images whose label is their number in one corner, sizes that differ."""
    path = tmp_path_factory.mktemp("data") / "set"
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    for i in range(COUNT):
        image = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), np.uint8)
        label = np.full((40 + i, 50), i, np.uint8)
        cv2.imwrite(str(path / "images" / f"{i}.png"), image)
        cv2.imwrite(str(path / "masks" / f"{i}.png"), label)
    for split, names in {"train": range(COUNT), "val": range(2)}.items():
        (path / f"{split}.txt").write_text("".join(f"{i}\n" for i in names))
    return path


def module(root, tmp_path, **options):
    defaults = {"num_classes": COUNT, "batch_size": 2, "crop_size": (32, 32), "num_workers": 1}
    return SegDataModule(root, FolderSource, tmp_path / "prepared", **(defaults | options))


def epochs(data, count, normalization=IMAGENET_RGB, **options):
    iterator = data.train_batches(normalization, **options).create_tuple_iterator(
        num_epochs=count, output_numpy=True
    )
    return [[(images.copy(), labels.copy()) for images, labels in iterator] for _ in range(count)]


def equal(left, right):
    return all(
        np.array_equal(a, c) and np.array_equal(b, d)
        for one, two in zip(left, right, strict=True)
        for (a, b), (c, d) in zip(one, two, strict=True)
    )


def test_batches_have_the_promised_shapes_and_types(root, tmp_path):
    (batches,) = epochs(module(root, tmp_path), 1)
    assert len(batches) == 3  # the seventh image is left over
    images, labels = batches[0]
    assert images.shape == (2, 3, 32, 32) and images.dtype == np.float32
    assert labels.shape == (2, 32, 32) and labels.dtype == np.int32


def test_equal_seeds_repeat_themselves_for_any_number_of_workers(root, tmp_path):
    one = epochs(module(root, tmp_path, num_workers=1), 2)
    two = epochs(module(root, tmp_path, num_workers=2), 2)
    other = epochs(module(root, tmp_path, seed=1), 2)
    assert equal(one, two)
    assert not equal(one, other)
    assert not np.array_equal(one[0][0][0], one[1][0][0])  # epochs differ


def test_a_later_start_gives_the_epochs_of_the_whole_run(root, tmp_path):
    whole = epochs(module(root, tmp_path), 3)
    late = epochs(module(root, tmp_path), 2, first_epoch=2)
    assert equal(whole[1:], late)


def test_ranks_share_the_batches_of_one_process(root, tmp_path):
    one = list(
        module(root, tmp_path, batch_size=4).train_batches(IMAGENET_RGB).create_tuple_iterator()
    )
    two = [
        next(
            iter(
                module(root, tmp_path)
                .train_batches(IMAGENET_RGB, 1, 1, rank, 2)
                .create_tuple_iterator()
            )
        )
        for rank in range(2)
    ]
    joined = np.concatenate([images.asnumpy() for images, _ in two])
    assert np.array_equal(one[0][0].asnumpy(), joined)
    with pytest.raises(UserError, match="batch_size=2 × 4 processes.*7 samples.*to 1 or less"):
        module(root, tmp_path).train_batches(IMAGENET_RGB, world_size=4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "split 'val': 2 of its 2 samples are trained on too, in split 'train'"),
        ({"val_split": "train"}, "split 'train': 7 of its 7 samples are trained on too"),
        ({"val_split": "late"}, "split 'late': 1 of its 2 samples are trained on too"),
        ({"train_split": ["early", "val"]}, "split 'val': 2 of its 2 samples are trained on too"),
        ({"train_split": "early", "val_split": "late"}, None),
        ({"val_split": "late", "limit_samples": 4}, None),  # of seven, the first four
        ({"folds": 2, "fold": 0}, None),
    ],
)
def test_what_is_validated_on_and_trained_on_is_told_in_a_line(
    root, tmp_path, caplog, options, told
):
    copy = shutil.copytree(root, tmp_path / "set")
    cv2.imwrite(str(copy / "images" / "7.png"), np.zeros((40, 50, 3), np.uint8))
    cv2.imwrite(str(copy / "masks" / "7.png"), np.zeros((40, 50), np.uint8))
    (copy / "early.txt").write_text("2\n3\n4\n")
    (copy / "late.txt").write_text("6\n7\n")
    module(copy, tmp_path, **options).train_batches(IMAGENET_RGB)
    lines = [r.getMessage() for r in caplog.records if "unseen images" in r.getMessage()]
    if told is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(told)
        assert "scores say nothing of unseen images; dataset.val_split=NAME" in line


def test_other_images_of_the_same_names_are_no_reason_to_warn(tmp_path, caplog):
    for number, split in enumerate(("train", "val")):
        for name in ("images", "masks"):
            (tmp_path / "set" / name / split).mkdir(parents=True)
        for i in range(2):
            image = np.full((40, 50, 3), 10 * i + number, np.uint8)
            cv2.imwrite(str(tmp_path / "set" / "images" / split / f"{i}.png"), image)
            cv2.imwrite(str(tmp_path / "set" / "masks" / split / f"{i}.png"), image[..., 0] // 10)
    module(tmp_path / "set", tmp_path).train_batches(IMAGENET_RGB)
    assert "unseen images" not in caplog.text


def test_accumulation_asks_for_larger_batches(root, tmp_path):
    data = module(root, tmp_path)
    assert data.train_batches(IMAGENET_RGB, accumulate=3).get_batch_size() == 6
    with pytest.raises(UserError, match=r"dataset.batch_size=2 × trainer.accumulate=4.*7 samples"):
        data.train_batches(IMAGENET_RGB, accumulate=4)


def test_less_than_one_batch_is_an_error_that_says_how_many_there_are(root, tmp_path):
    with pytest.raises(UserError, match="split 'train' holds 7 samples.*batch_size to 7 or less"):
        module(root, tmp_path, batch_size=8).train_batches(IMAGENET_RGB)


def test_more_workers_than_cores_are_cut_to_the_cores(root, tmp_path):
    assert len(epochs(module(root, tmp_path, num_workers=500), 1)[0]) == 3


def test_whole_images_need_a_batch_of_one(root, tmp_path):
    with pytest.raises(UserError, match="dataset.batch_size=1"):
        module(root, tmp_path, crop_size=None)
    data = module(root, tmp_path, crop_size=None, scale_range=None, batch_size=1)
    with pytest.raises(UserError, match="set trainer.accumulate=1"):
        data.train_batches(IMAGENET_RGB, accumulate=2)
    shapes = {labels.shape for _, labels in epochs(data, 1)[0]}
    assert shapes == {(1, 40 + i, 50) for i in range(COUNT)}


def test_evaluation_samples_are_the_files_at_native_size_and_in_order(root, tmp_path):
    samples = module(root, tmp_path).eval_samples()
    assert [sample.name for sample in samples] == ["0", "1"]
    expected = cv2.imread(str(root / "images" / "1.png"))[..., ::-1]
    assert np.array_equal(samples[1].image, expected)
    assert (samples[1].label == 1).all() and samples[1].label.shape == (41, 50)
    assert len(module(root, tmp_path, limit_samples=1).eval_samples()) == 1


def test_training_follows_the_normalisation_of_the_weights(root, tmp_path):
    plain = {"scale_range": None, "flip": 0.0, "crop_size": (32, 32)}
    data = module(root, tmp_path, **plain)
    left, right = epochs(data, 1)[0][0][0], epochs(data, 1, TUTORIAL_BGR)[0][0][0]
    red = left[:, 0] * 58.395 + 123.675
    assert np.allclose(red, right[:, 2] * 58.395 + 123.675, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": None}, "num_classes=0"),
        ({"num_classes": 3, "class_names": ["a", "b"]}, "class_names names 2"),
        ({"num_classes": 300}, "num_classes=300: expected 2 to 255"),
        ({"num_classes": None, "class_names": ["thing"]}, "one class .thing.*add the background"),
        ({"num_classes": 3, "class_names": ["void", "road", "void"]}, "class_names: void, void: "),
        ({"num_classes": 2, "class_names": ["Road", "road"]}, "differ in nothing or in case alone"),
        ({"num_classes": 2, "class_names": ["B\u00e4r", "Ba\u0308r"]}, "class_names: Bär, Ba"),
    ],
)
def test_numbers_and_names_of_classes_must_agree(root, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        module(root, tmp_path, **options)


def test_classes_txt_and_configured_names_must_be_the_same(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "classes.txt").write_text("sky\nroad\ncar\n")
    for wrong in (["road", "sky", "car"], ["sky", "road"]):
        with pytest.raises(
            UserError,
            match=f"class_names={', '.join(wrong)}: the files in dataset.root name .*sky, road",
        ):
            module(copy, tmp_path, num_classes=None, class_names=wrong)
    assert module(copy, tmp_path, num_classes=None).class_names == ("sky", "road", "car")
    same = module(copy, tmp_path, num_classes=3, class_names=["sky", "road", "car"])
    assert same.num_classes == 3


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_images_is_told_before_class_names_are_asked_for(tmp_path, made):
    if made:
        (tmp_path / "set").mkdir()
    expected = "holds no images" if made else "no such folder"
    with pytest.raises(UserError, match=expected):
        module(tmp_path / "set", tmp_path, num_classes=None)


def test_mindrecord_files_want_the_number_of_classes(tmp_path):
    (tmp_path / "train.mindrecord").write_bytes(b"")
    with pytest.raises(UserError, match="num_classes=0: expected 2 to 255"):
        SegDataModule(tmp_path, RecordSource, tmp_path / "prepared")


def test_ids_and_colours_must_be_as_many_as_the_classes(root, tmp_path):
    for key, values in (("ids", [1, 2]), ("palette", [[0, 0, 0], [9, 9, 9]])):
        source = functools.partial(FolderSource, **{key: values})
        with pytest.raises(UserError, match=rf"dataset\.source\.{key}.*2 .* for 7 classes"):
            SegDataModule(root, source, tmp_path / "prepared", num_classes=COUNT)


def test_where_a_layout_has_no_key_of_ids_the_hint_names_one_that_has(root, tmp_path):
    voc = tmp_path / "VOC2012"
    shutil.copytree(root / "images", voc / "JPEGImages")
    shutil.copytree(root / "masks", voc / "SegmentationClass")
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{i}\n" for i in range(1, COUNT)))
    with pytest.raises(UserError) as refused:  # labels 1 to 6 for classes 0 to 5
        SegDataModule(voc, VocSource, tmp_path / "prepared", num_classes=COUNT - 1).prepare("train")
    assert "set dataset=folder dataset.source.ids=[1,2,3,4,5,6]" in str(refused.value)
    source = functools.partial(FolderSource, ids=[1, 2, 3, 4, 5, 6])
    data = SegDataModule(voc, source, tmp_path / "prepared", num_classes=COUNT - 1)
    assert [int(sample.label[0, 0]) for sample in data.eval_samples("train")] == [0, 1, 2, 3, 4, 5]
