"""Folds: every sample held out once, groups whole, and nothing converted twice."""

from collections import Counter

import cv2
import numpy as np
import pytest

from src.data.datamodule import SegDataModule
from src.data.folds import Folds
from src.data.sources.folder import FolderSource
from src.data.sources.records import RecordSource
from src.utils.errors import UserError
from tests.data.samples import visible


def add(root, name, class_id):
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / f"{name}.png"), np.zeros((4, 5, 3), np.uint8))
    cv2.imwrite(str(root / "masks" / f"{name}.png"), np.full((4, 5), class_id, np.uint8))


@pytest.fixture
def root(tmp_path):
    """Sequences a (4 images), b (2), c (2) and d (1), of which the class is the sequence's."""
    for class_id, (sequence, count) in enumerate({"a": 4, "b": 2, "c": 2, "d": 1}.items()):
        for number in range(count):
            add(tmp_path / "set", f"{sequence}_{number}", class_id)
    return tmp_path / "set"


def module(root, tmp_path, source=FolderSource, **options):
    options = {"num_classes": 4, "batch_size": 1, "crop_size": (32, 32), **options}
    return SegDataModule(root, source, tmp_path / "prepared", **options)


def names(samples):
    return [sample.name for sample in samples]


def lists(root, **splits):
    for split, listed in splits.items():
        (root / f"{split}.txt").write_text("\n".join(listed))


def test_singles_are_divided_evenly_and_otherwise_by_another_seed():
    listed = [str(i) for i in range(11)]
    fold_of = Folds(4, 0).divide(listed)
    assert sorted(Counter(fold_of.tolist()).values()) == [2, 3, 3, 3]
    assert fold_of.tolist() == Folds(4, 3).divide(listed).tolist()
    assert fold_of.tolist() != Folds(4, 0, seed=1).divide(listed).tolist()
    order = np.random.default_rng(0).permutation(11)  # the list's order decides nothing
    assert Folds(4, 0).divide([listed[i] for i in order]).tolist() == fold_of[order].tolist()


def test_groups_stay_together_the_largest_first_into_the_emptiest_fold():
    listed = ["a_0", "a_1", "a_2", "a_3", "b_0", "b_1", "c_0", "c_1", "d_0"]
    fold_of = Folds(2, 0, "^([a-z])_").divide(listed).tolist()
    # a: fold 0 (4 : 0); b and c: fold 1 (4 : 4); d: the first of the two that are equal
    assert fold_of == [0, 0, 0, 0, 1, 1, 1, 1, 0]
    assert Folds(2, 0, "^[a-z]").divide(listed).tolist() == fold_of  # without a group: the match


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        (lambda: Folds(5, 0, "^([a-z])_").divide(["a_0", "a_1", "b_0"]), "finds 2 groups"),
        (lambda: Folds(4, 0).divide(["x", "y", "z"]), "there are 3 samples"),
        (lambda: Folds(2, 0, r"(\d)").divide(["a1", "b"]), "matches no part of b"),
        (lambda: Folds(2, 0, "(a)|b").divide(["a", "b"]), "matches no part of b"),
        (lambda: Folds(2, 0, "(a"), "no regular expression"),
        (lambda: Folds(3, 3), "from 0 to 2"),
        (lambda: Folds(3, None), "dataset.fold=null"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_a_line(folds, words):
    with pytest.raises(UserError, match=words) as caught:
        folds()
    assert "\n" not in str(caught.value)


def test_of_listed_splits_the_training_samples_are_divided_and_no_others(root, tmp_path):
    lists(root, train=["a_0", "a_1", "b_0", "b_1", "c_0"], val=["d_0", "c_1"])
    held_out = []
    for fold in range(3):
        data = module(root, tmp_path, folds=3, fold=fold)
        mine = names(data.eval_samples())
        trained = [data.train_crops()[key][0] for key in data.train_crops().keys(1)]
        assert sorted(mine + trained) == ["a_0", "a_1", "b_0", "b_1", "c_0"]
        assert names(data.eval_samples("val")) == ["c_1", "d_0"]
        held_out += mine
    assert sorted(held_out) == ["a_0", "a_1", "b_0", "b_1", "c_0"]
    with pytest.raises(UserError, match="give split=fold2"):
        data.eval_samples("train")
    converted = [name.split("-")[0] for name in visible(tmp_path / "prepared")]
    assert converted == ["train", "val"]  # once for all folds


def test_without_lists_all_samples_are_divided_by_groups(root, tmp_path):
    options = {"folds": 2, "fold": 1, "fold_by": "^([a-z])_"}
    data = module(root, tmp_path, **options)
    assert sorted(names(data.eval_samples())) == ["b_0", "b_1", "c_0", "c_1"]
    assert sorted(names(data.eval_samples("fold0"))) == ["a_0", "a_1", "a_2", "a_3", "d_0"]
    reports = data.prepare(data.train_split, data.val_split)
    pixels = {k: [row["pixels"] for row in r["classes"]] for k, r in reports.items()}
    assert pixels == {"all but fold1": [80, 0, 0, 20], "fold1": [0, 40, 40, 0]}  # 20 an image
    assert [report["count"] for report in reports.values()] == [5, 4]


def test_rows_of_mindrecord_files_are_divided_too(root, tmp_path):
    lists(root, train=["a_0", "a_1", "b_0"], val=["c_0"])
    file = module(root, tmp_path).record_file("train")
    data = module(file, tmp_path, RecordSource, folds=3, fold=0)
    found = [names(data.eval_samples(f"fold{fold}")) for fold in range(3)]
    assert sorted(name for fold in found for name in fold) == ["a_0", "a_1", "b_0"]
    with pytest.raises(UserError, match="has no MindRecord file of its own"):
        data.record_file(data.val_split)


def test_several_splits_are_trained_on_together(root, tmp_path):
    lists(root, train=["a_0", "a_1"], val=["d_0"], more=["b_0"])
    data = module(root, tmp_path, train_split=["train", "val"], val_split="more")
    crops = data.train_crops()
    assert sorted(crops[key][0] for key in crops.keys(1)) == ["a_0", "a_1", "d_0"]
    report = data.prepare(data.train_split)["train+val"]
    assert [row["pixels"] for row in report["classes"]] == [40, 0, 0, 20]
    fold = module(root, tmp_path, train_split=["train", "val"], folds=3, fold=0)
    assert sum(len(fold.eval_samples(f"fold{number}")) for number in range(3)) == 3


def test_a_name_in_two_splits_and_a_split_named_twice_are_refused(root, tmp_path):
    lists(root, train=["a_0", "a_1"], val=["a_1", "d_0"])
    with pytest.raises(UserError, match="more than one of them: a_1"):
        module(root, tmp_path, train_split=["train", "val"]).train_crops()
    with pytest.raises(UserError, match="each once"):
        module(root, tmp_path, train_split=["train", "train"])
    with pytest.raises(UserError, match="give dataset.folds=5 too"):
        module(root, tmp_path, fold=0)
