"""Losses against hand-computed values, a NumPy reference and its central differences, in both modes."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.losses import CrossEntropy, Dice, Focal, Lovasz, Ohem, Tversky, WeightedSum
from src.utils.errors import UserError


@pytest.fixture(autouse=True)
def pynative():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=before)


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request, pynative):
    ms.set_context(mode=request.param)


def value(loss, logits, labels, dtype=ms.float32):
    return float(loss(Tensor(logits, dtype), Tensor(labels, ms.int32)).asnumpy())


def gradient(loss, logits, labels, dtype=ms.float32):
    grad = ms.grad(loss)(Tensor(logits, dtype), Tensor(labels, ms.int32))
    return grad.asnumpy()


def pixels(*probabilities):
    """Logits 1×C×1×n whose softmax is the given rows."""
    return np.log(np.array(probabilities, np.float64)).T[None, :, None, :].astype(np.float32)


def labels_of(*ids):
    return np.array(ids, np.int32)[None, None, :]


def rows(logits, labels):
    """Valid pixels as rows: probabilities P×C in float64, and their class ids."""
    flat = logits.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, logits.shape[1])
    keep = labels.ravel() != 255
    e = np.exp(flat[keep] - flat[keep].max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True), labels.ravel()[keep]


def cross_entropy(logits, labels, weights=None, smoothing=0.0):
    p, ids = rows(logits, labels)
    classes = p.shape[1]
    weights = np.ones(classes) if weights is None else np.array(weights)
    target = np.eye(classes)[ids] * (1 - smoothing) + smoothing / classes
    return -(target * weights * np.log(p)).sum() / weights[ids].sum()


def ohem(logits, labels, thresh, min_kept):
    p, ids = rows(logits, labels)
    right = np.sort(p[np.arange(len(ids)), ids])
    count = max((right < thresh).sum(), math.ceil(min_kept * len(ids)))
    return -np.log(right[:count]).mean()


def focal(logits, labels, gamma, alpha):
    p, ids = rows(logits, labels)
    right = p[np.arange(len(ids)), ids]
    return (np.array(alpha)[ids] * (1 - right) ** gamma * -np.log(right)).mean()


def dice(logits, labels):
    p, ids = rows(logits, labels)
    target = np.eye(p.shape[1])[ids]
    present = target.any(axis=0)
    return (1 - 2 * (p * target).sum(0) / (p + target).sum(0))[present].mean()


def tversky(logits, labels, alpha, beta, gamma=1.0):
    p, ids = rows(logits, labels)
    target = np.eye(p.shape[1])[ids]
    right = (p * target).sum(0)
    wrong, missed = (p * (1 - target)).sum(0), ((1 - p) * target).sum(0)
    index = right / (right + alpha * wrong + beta * missed)
    return ((1 - index) ** (1 / gamma))[target.any(axis=0)].mean()


def lovasz(logits, labels):
    """As defined: each class's 1 - IoU of growing sets of wrong pixels, the largest errors first."""
    p, ids = rows(logits, labels)
    losses = []
    for k in np.unique(ids):
        own = ids == k
        errors = np.where(own, 1 - p[:, k], p[:, k])
        loss, wrong, before = 0.0, np.zeros(len(ids), bool), 0.0
        for pixel in np.argsort(-errors, kind="stable"):
            wrong[pixel] = True
            predicted = own ^ wrong
            jaccard_loss = 1 - (own & predicted).sum() / (own | predicted).sum()
            loss += errors[pixel] * (jaccard_loss - before)
            before = jaccard_loss
        losses.append(loss)
    return np.mean(losses)


WEIGHTS = [1.0, 0.5, 3.0, 2.0]
CASES = {
    "cross entropy": (CrossEntropy(), cross_entropy),
    "class weights": (
        CrossEntropy(class_weights=WEIGHTS),
        lambda x, y: cross_entropy(x, y, WEIGHTS),
    ),
    "smoothing": (CrossEntropy(label_smoothing=0.1), lambda x, y: cross_entropy(x, y, None, 0.1)),
    "weights and smoothing": (
        CrossEntropy(class_weights=WEIGHTS, label_smoothing=0.2),
        lambda x, y: cross_entropy(x, y, WEIGHTS, 0.2),
    ),
    "ohem by threshold": (Ohem(0.6, 0.1), lambda x, y: ohem(x, y, 0.6, 0.1)),
    "ohem by number": (Ohem(0.01, 0.5), lambda x, y: ohem(x, y, 0.01, 0.5)),
    "focal": (Focal(2.0, WEIGHTS), lambda x, y: focal(x, y, 2.0, WEIGHTS)),
    "focal, odd gamma": (Focal(0.5, 0.25), lambda x, y: focal(x, y, 0.5, [0.25] * 4)),
    "dice": (Dice(), dice),
    "tversky": (Tversky(0.3, 0.7), lambda x, y: tversky(x, y, 0.3, 0.7)),
    "focal tversky": (Tversky(0.2, 1.1, 4 / 3), lambda x, y: tversky(x, y, 0.2, 1.1, 4 / 3)),
    "tversky of halves": (Tversky(0.5, 0.5), dice),
    "lovasz": (Lovasz(), lovasz),
    "sum with lovasz": (
        WeightedSum({"a": CrossEntropy(), "b": Lovasz()}, {"a": 1, "b": 0.5}),
        lambda x, y: cross_entropy(x, y) + 0.5 * lovasz(x, y),
    ),
    "sum": (
        WeightedSum({"a": CrossEntropy(), "b": Dice()}, {"a": 0.7, "b": 2}),
        lambda x, y: 0.7 * cross_entropy(x, y) + 2 * dice(x, y),
    ),
}


def batch():
    """Class 3 is absent from the labels, some pixels are ignored."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (2, 2, 3)).astype(np.int32)
    labels[0, 0, 1] = labels[1, 1, :2] = 255
    return rng.normal(size=(2, 4, 2, 3)).astype(np.float32) * 2, labels


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_agree_with_numpy(name, mode):
    loss, reference = CASES[name]
    logits, labels = batch()
    actual, grad = ms.value_and_grad(loss)(Tensor(logits), Tensor(labels))
    assert float(actual.asnumpy()) == pytest.approx(reference(logits, labels), rel=1e-5)
    expected = np.zeros(logits.shape)
    for at in np.ndindex(*logits.shape):
        shift = np.zeros(logits.shape)
        shift[at] = 1e-5
        expected[at] = reference(logits + shift, labels) - reference(logits - shift, labels)
    np.testing.assert_allclose(grad.asnumpy(), expected / 2e-5, atol=2e-6)
    assert not grad.asnumpy()[0, :, 0, 1].any()  # an ignored pixel


@pytest.mark.parametrize("name", CASES)
def test_a_batch_without_valid_pixels_costs_nothing_and_moves_nothing(name):
    logits, labels = batch()
    ignored = np.full_like(labels, 255)
    assert value(CASES[name][0], logits, ignored) == 0
    assert not gradient(CASES[name][0], logits, ignored).any()


def test_cross_entropy_of_one_pixel_is_minus_log_of_its_probability():
    assert value(CrossEntropy(), pixels([0.25, 0.75]), labels_of(1)) == pytest.approx(
        math.log(4 / 3)
    )


def test_class_weights_of_one_and_three_give_the_rarer_class_three_quarters():
    logits = pixels([0.5, 0.5], [0.8, 0.2])  # losses ln 2 and ln 5
    loss = CrossEntropy(class_weights=[1, 3])
    expected = (math.log(2) + 3 * math.log(5)) / 4
    assert value(loss, logits, labels_of(0, 1)) == pytest.approx(expected)


def test_smoothing_by_a_tenth_takes_the_target_to_nineteen_twentieths():
    expected = -0.95 * math.log(0.8) - 0.05 * math.log(0.2)
    loss = CrossEntropy(label_smoothing=0.1)
    assert value(loss, pixels([0.8, 0.2]), labels_of(0)) == pytest.approx(expected)


def test_sum_adds_the_pixels_up():
    logits = pixels([0.5, 0.5], [0.8, 0.2], [0.1, 0.9])
    loss = CrossEntropy(reduction="sum")
    assert value(loss, logits, labels_of(0, 1, 255)) == pytest.approx(math.log(2) + math.log(5))
    assert value(Focal(0, reduction="sum"), logits, labels_of(0, 1, 255)) == pytest.approx(
        math.log(2) + math.log(5)
    )


def test_an_ignored_id_may_be_one_of_the_classes():
    logits = pixels([0.5, 0.5], [0.8, 0.2])
    assert value(CrossEntropy(ignore_index=0), logits, labels_of(0, 1)) == pytest.approx(
        math.log(5)
    )


@pytest.mark.parametrize(
    ("thresh", "min_kept", "kept"),
    [
        (0.7, 0.0, [0.6, 0.2]),  # those below the threshold
        (0.7, 0.75, [0.8, 0.6, 0.2]),  # too few below it: three of four
        (0.1, 0.25, [0.2]),
        (0.1, 0.0, []),
        (0.1, 1.0, [0.9, 0.8, 0.6, 0.2]),
    ],
)
def test_ohem_averages_the_hard_pixels(thresh, min_kept, kept):
    logits = pixels(*([p, 1 - p] for p in (0.9, 0.2, 0.8, 0.6, 0.01)))
    expected = -np.log(kept).mean() if kept else 0
    actual = value(Ohem(thresh, min_kept), logits, labels_of(0, 0, 0, 0, 255))
    assert actual == pytest.approx(expected, rel=1e-5)


def test_focal_plays_an_easy_pixel_down():
    logits = pixels([0.75, 0.25])
    assert value(Focal(2.0), logits, labels_of(0)) == pytest.approx(
        0.25**2 * math.log(4 / 3), rel=1e-5
    )
    assert value(Focal(0.0), logits, labels_of(0)) == pytest.approx(math.log(4 / 3))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_finite_gradient_where_the_network_is_certain(gamma):
    certain = np.array([200.0, 0.0], np.float32).reshape(1, 2, 1, 1)
    assert np.isfinite(gradient(Focal(gamma), certain, labels_of(0))).all()


def test_dice_leaves_out_a_class_absent_from_the_labels():
    logits = pixels([0.75, 0.25], [0.5, 0.5])
    expected = 1 - 2 * 1.25 / (1.25 + 2)
    assert value(Dice(), logits, labels_of(0, 0)) == pytest.approx(expected, rel=1e-5)
    perfect = np.array([[30.0, 0], [0, 30]]).reshape(1, 2, 1, 2)
    assert value(Dice(), perfect, labels_of(0, 1)) == pytest.approx(0, abs=1e-6)


def test_tversky_weighs_false_positives_and_false_negatives():
    logits = pixels([0.75, 0.25], [0.5, 0.5], [0.5, 0.5])
    # Class 0: TP 0.75, FP 1, FN 0.25; class 1: TP 1, FP 0.25, FN 1
    first, second = 0.75 / (0.75 + 0.3 * 1 + 0.7 * 0.25), 1 / (1 + 0.3 * 0.25 + 0.7 * 1)
    expected = 1 - (first + second) / 2
    assert value(Tversky(0.3, 0.7), logits, labels_of(0, 1, 1)) == pytest.approx(expected)
    expected = ((1 - first) ** 0.75 + (1 - second) ** 0.75) / 2
    assert value(Tversky(0.3, 0.7, 4 / 3), logits, labels_of(0, 1, 1)) == pytest.approx(expected)


def test_tversky_with_equal_halves_is_dice_to_the_last_bit():
    logits, labels = batch()
    halves = Tversky(0.5, 0.5)
    assert value(halves, logits, labels) == value(Dice(), logits, labels)
    assert np.array_equal(gradient(halves, logits, labels), gradient(Dice(), logits, labels))


def test_focal_tversky_has_a_finite_gradient_where_the_network_is_certain():
    certain = np.array([200.0, 0.0], np.float32).reshape(1, 2, 1, 1)
    assert np.isfinite(gradient(Tversky(gamma=4 / 3), certain, labels_of(0))).all()


def test_lovasz_of_three_pixels_worked_out_by_hand(mode):
    logits = pixels([0.9, 0.1], [0.4, 0.6], [0.3, 0.7])
    # Class 0, pixels 1 and 2, errors 0.6 0.3 0.1: IoU falls from 1 to 1/2, to 1/3, to 0
    first = 0.6 * 1 / 2 + 0.3 * (1 / 2 - 1 / 3) + 0.1 * 1 / 3
    # Class 1, pixel 3, the same errors: IoU falls from 1 to 1/2, to 0, where it stays
    second = 0.6 * 1 / 2 + 0.3 * 1 / 2
    actual = value(Lovasz(), logits, labels_of(0, 0, 1))
    assert actual == pytest.approx((first + second) / 2, rel=1e-5)
    # An ignored pixel, however wrong, changes nothing; nor does a class that is absent
    more = pixels([0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [1e-6, 1 - 1e-6])
    assert value(Lovasz(), more, labels_of(0, 0, 1, 255)) == pytest.approx(actual)
    third = np.concatenate([logits, np.full((1, 1, 1, 3), -50, np.float32)], axis=1)
    assert value(Lovasz(), third, labels_of(0, 0, 1)) == pytest.approx(actual)


def test_lovasz_of_a_certain_prediction_is_one_minus_its_mean_iou():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 2, 8, 8))
    logits = 100.0 * np.eye(3, dtype=np.float32)[predicted].transpose(0, 3, 1, 2)
    pairs = [(labels == k, predicted == k) for k in range(3)]
    iou = np.mean([(own & found).sum() / (own | found).sum() for own, found in pairs])
    assert value(Lovasz(), logits, labels) == pytest.approx(1 - iou, rel=1e-5)


def jaccard_gradient(own):
    """Algorithm 1 of Berman et al. 2018, in float64, for pixels in the order of their errors."""
    intersection = own.sum() - own.cumsum()
    union = own.sum() + (1 - own).cumsum()
    return np.diff(1 - intersection / union, prepend=0)


def test_lovasz_agrees_with_algorithm_1_on_a_batch_as_large_as_in_training(mode):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 3, 64, 64)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 255], (4, 64, 64), p=[0.85, 0.01, 0.04, 0.1]).astype(np.int32)
    p, ids = rows(logits, labels)
    loss, by_probability = 0.0, np.zeros(p.shape)
    for k in range(3):
        own = (ids == k).astype(float)
        errors = np.abs(own - p[:, k])
        order = np.argsort(-errors)
        gains = np.zeros(len(ids))
        gains[order] = jaccard_gradient(own[order])
        loss += (errors * gains).sum() / 3
        by_probability[:, k] = gains * (1 - 2 * own) / 3
    by_logit = p * (by_probability - (p * by_probability).sum(axis=1, keepdims=True))
    actual, grad = ms.value_and_grad(Lovasz())(Tensor(logits), Tensor(labels))
    assert float(actual.asnumpy()) == pytest.approx(loss, rel=1e-5)
    found = grad.asnumpy().transpose(0, 2, 3, 1)[labels != 255]
    # Errors that float32 cannot tell apart may change places
    np.testing.assert_allclose(found, by_logit, rtol=1e-3, atol=1e-3 * np.abs(by_logit).max())
    assert not grad.asnumpy().transpose(0, 2, 3, 1)[labels == 255].any()


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        CrossEntropy(reduction="sum"),
        CrossEntropy(class_weights=WEIGHTS, label_smoothing=0.1),
        Focal(),
        WeightedSum({"a": CrossEntropy(), "b": Focal()}, {"a": 1, "b": 0.4}),
    ],
)
def test_parts_of_a_batch_combine_to_the_loss_of_the_whole(loss):
    logits, labels = batch()
    sums, weights = zip(
        *(
            loss.parts(Tensor(logits[i : i + 1]), Tensor(np.where(valid, labels[i : i + 1], 255)))
            for i, valid in ((0, True), (1, True), (0, False))
        ),
        strict=True,
    )
    combined = sum(sums) / loss.divisor(sum(weights))
    assert float(combined.asnumpy()) == pytest.approx(value(loss, logits, labels), rel=1e-5)


def test_half_precision_logits_are_worked_off_in_float32():
    logits = np.zeros((1, 2, 300, 300), np.float16)
    labels = np.zeros((1, 300, 300), np.int32)
    loss = CrossEntropy(reduction="sum")  # 62,383, and float16 ends at 65,504 with steps of 32
    assert value(loss, logits, labels, ms.float16) == pytest.approx(90_000 * math.log(2), rel=1e-5)
    loss_sum, weight_sum = Ohem().parts(Tensor(logits), Tensor(labels))
    assert loss_sum.dtype == weight_sum.dtype == ms.float32
    assert gradient(CrossEntropy(), logits, labels, ms.float16).dtype == np.float16


def test_huge_logits_stay_finite():
    logits = np.array([1e4, -1e4], np.float32).reshape(1, 2, 1, 1)
    assert value(CrossEntropy(), logits, labels_of(0)) == 0
    assert value(CrossEntropy(), logits, labels_of(1)) == pytest.approx(2e4)
    assert gradient(CrossEntropy(), logits, labels_of(1)).ravel().tolist() == [1, -1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CrossEntropy(reduction="median"), "reduction=median: expected mean or sum"),
        (lambda: CrossEntropy(class_weights=[1, -1]), "class_weights=.*at least 0"),
        (lambda: CrossEntropy(class_weights=[0, 0]), "class_weights="),
        (lambda: CrossEntropy(label_smoothing=1.5), "label_smoothing=1.5"),
        (lambda: Ohem(thresh=70), "thresh=70"),
        (lambda: Ohem(min_kept=100000), "min_kept=100000"),
        (lambda: Focal(gamma=-1), "gamma=-1"),
        (lambda: Tversky(-0.1, 0.7), "alpha=-0.1 beta=0.7: expected numbers of at least 0"),
        (lambda: Tversky(0, 0), "alpha=0 beta=0: .*one above 0"),
        (lambda: Tversky(gamma=0.75), "gamma=0.75: expected at least 1; the exponent is 1 / gamma"),
        (lambda: WeightedSum({"a": Dice()}, {"b": 1}), "a weight for every loss"),
    ],
)
def test_values_that_cannot_be_are_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_class_weights_of_the_wrong_number_are_refused(mode):
    with pytest.raises(ValueError, match="3 factors for 2 classes"):
        value(CrossEntropy(class_weights=[1, 1, 1]), pixels([0.5, 0.5]), labels_of(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda one_hot: CrossEntropy(class_weights=[1.0, 2.0, 0.5], one_hot=one_hot),
        lambda one_hot: CrossEntropy(label_smoothing=0.1, reduction="sum", one_hot=one_hot),
        lambda one_hot: Focal(one_hot=one_hot),
        lambda one_hot: Ohem(one_hot=one_hot),
    ],
)
def test_a_product_with_one_hot_labels_gives_the_values_and_gradients_of_a_gather(make, mode):
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 255], (2, 5, 4)).astype(np.int32)
    gathered, product = make(one_hot=False), make(one_hot=True)
    assert value(product, logits, labels) == value(gathered, logits, labels)
    assert np.array_equal(gradient(product, logits, labels), gradient(gathered, logits, labels))
