"""The confusion matrix against hand counts and against scores written out class by class."""

import math
import warnings

import numpy as np
import pytest

from src.metrics import ConfusionMatrix, per_class, scores
from src.utils.errors import UserError

NAN = float("nan")


def count(target, pred, num_classes=3, ignore_index=255, dtype=np.uint8):
    matrix = ConfusionMatrix(num_classes, ignore_index)
    matrix.update(np.array(target, dtype), np.array(pred, dtype))
    return matrix.matrix


def test_rows_are_targets_and_ignored_pixels_are_not_counted():
    matrix = count([0, 0, 1, 255], [0, 1, 1, 2])
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_scores_of_a_matrix_worked_out_by_hand():
    # class 0: 6 of 8 right, 7 predicted; class 1: 1 of 2 right, 3 predicted; class 2: nowhere
    matrix = np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
    result = scores(matrix)
    assert result["pixel_acc"] == pytest.approx(7 / 10)
    assert result["macc"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert result["miou"] == pytest.approx((6 / 9 + 1 / 4) / 2)
    assert result["fwiou"] == pytest.approx(0.8 * 6 / 9 + 0.2 * 1 / 4)
    assert result["mdice"] == pytest.approx((12 / 15 + 2 / 5) / 2)
    # by chance (8 × 7 + 2 × 3) / 10 = 6.2 of 10 pixels would be right, 7 are
    assert result["kappa"] == pytest.approx((7 - 6.2) / (10 - 6.2))


def test_a_class_predicted_but_absent_has_iou_zero_and_accuracy_nan():
    table = per_class(count([0, 0, 0, 0], [0, 0, 0, 1]), ["sky", "road", "car"])
    assert table["sky"] == {
        "iou": 0.75, "acc": 0.75, "dice": pytest.approx(6 / 7), "precision": 1, "recall": 0.75,
        "target_pixels": 4, "pred_pixels": 3,
    }  # fmt: skip
    assert table["road"]["dice"] == table["road"]["precision"] == 0
    assert math.isnan(table["road"]["recall"]) and math.isnan(table["car"]["precision"])
    assert table["road"]["iou"] == 0 and math.isnan(table["road"]["acc"])
    assert table["road"]["target_pixels"] == 0 and table["road"]["pred_pixels"] == 1
    assert math.isnan(table["car"]["iou"]) and math.isnan(table["car"]["acc"])
    assert scores(count([0, 0, 0, 0], [0, 0, 0, 1]))["miou"] == pytest.approx(0.75 / 2)
    assert scores(count([0, 0, 0, 0], [0, 0, 0, 1]))["macc"] == 0.75


def test_kappa_is_zero_at_chance_one_where_all_is_right_and_nan_of_a_single_class():
    assert scores(np.array([[4, 4], [1, 1]]))["kappa"] == 0  # one prediction for both classes
    assert scores(np.array([[3, 0], [0, 2]]))["kappa"] == 1
    assert math.isnan(scores(np.array([[5, 0], [0, 0]]))["kappa"])
    many = np.array([[6, 2], [1, 1]]) * 10**12  # whose products are beyond 64 bits
    assert scores(many)["kappa"] == pytest.approx(0.8 / 3.8)


def test_only_ignored_pixels_give_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = count([255, 255], [0, 1])
        assert matrix.sum() == 0
        assert all(math.isnan(value) for value in scores(matrix).values())
        assert math.isnan(per_class(matrix, "abc")["a"]["iou"])


def reference(targets, preds, num_classes, ignore_index):
    """All scores from boolean masks over the concatenated pixels."""
    target, pred = np.concatenate(targets).ravel(), np.concatenate(preds).ravel()
    target, pred = target[target != ignore_index], pred[target != ignore_index]
    accs, ious, dices, weighted, chance = [], [], [], 0.0, 0.0
    for k in range(num_classes):
        both, either = ((target == k) & (pred == k)).sum(), ((target == k) | (pred == k)).sum()
        present = (target == k).sum()
        if either:
            ious.append(both / either)
            dices.append(2 * both / ((target == k).sum() + (pred == k).sum()))
            weighted += both / either * present / target.size
        chance += (target == k).mean() * (pred == k).mean()
        if present:
            accs.append(both / present)
    return {
        "pixel_acc": (target == pred).mean(),
        "macc": np.mean(accs),
        "miou": np.mean(ious),
        "fwiou": weighted,
        "mdice": np.mean(dices),
        "kappa": ((target == pred).mean() - chance) / (1 - chance),
    }


@pytest.mark.parametrize("ignore_index", [255, 0, 20, -100, 300])
@pytest.mark.parametrize("dtypes", [(np.int32, np.int32), (np.int64, np.uint8)])
def test_random_labels_agree_with_the_reference_whatever_the_ignored_id(ignore_index, dtypes):
    rng = np.random.default_rng(1)
    targets = [rng.integers(0, 21, (2, 9, 7)) for _ in range(3)]
    for target in targets:
        target[target == 13] = 4  # one class is absent from the targets
        target[rng.random(target.shape) < 0.2] = ignore_index
    preds = [rng.integers(0, 20, (2, 9, 7)) for _ in range(3)]
    matrix = ConfusionMatrix(21, ignore_index)
    for target, pred in zip(targets, preds, strict=True):
        matrix.update(target.astype(dtypes[0]), pred.astype(dtypes[1]))
    assert scores(matrix.matrix) == pytest.approx(reference(targets, preds, 21, ignore_index))


def test_matrices_of_parts_add_up_to_that_of_the_whole():
    rng = np.random.default_rng(2)
    target, pred = rng.integers(0, 3, (4, 5, 5)), rng.integers(0, 3, (4, 5, 5))
    parts = ConfusionMatrix(3)
    parts.update(target[:1], pred[:1])
    parts.merge(count(target[1:], pred[1:]))
    assert parts.matrix.tolist() == count(target, pred).tolist()
    parts.clear()
    assert parts.matrix.sum() == 0


@pytest.mark.parametrize(
    ("target", "pred", "dtype", "named"),
    [
        ([0, 3], [0, 0], np.uint8, "label id 3"),
        ([0, 254], [0, 0], np.int32, "label id 254"),
        ([0, 256], [0, 0], np.int32, "label id 256"),
        ([0, -1], [0, 0], np.int32, "label id -1"),
        ([255, 255], [0, 3], np.uint8, "prediction id 3"),
        ([0, 0], [0, -2], np.int64, "prediction id -2"),
    ],
)
def test_an_id_outside_the_classes_is_named_and_nothing_is_counted(target, pred, dtype, named):
    matrix = ConfusionMatrix(3)
    with pytest.raises(UserError, match=named):
        matrix.update(np.array(target, dtype), np.array(pred, dtype))
    assert matrix.matrix.sum() == 0


def test_shapes_types_and_names_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="one shape"):
        count([0, 1], [0])
    with pytest.raises(UserError, match="float32"):
        count([0, 1], [0, 1], dtype=np.float32)
    with pytest.raises(UserError, match="2 class names for 3"):
        per_class(np.eye(3, dtype=np.int64), ["a", "b"])
    with pytest.raises(UserError, match="cannot be added"):
        ConfusionMatrix(3).merge(np.eye(2, dtype=np.int64))
