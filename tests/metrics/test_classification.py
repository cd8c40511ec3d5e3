"""Metrics against scikit-learn, numpy and the measured traps of torchmetrics."""

import math
import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from vidtl.metrics.classification import (
    chance_levels,
    classes_without_positives,
    compute_metrics,
    confusion_matrix,
    per_class_accuracy,
    per_class_average_precision,
)


def one_hot(labels, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[labels]


def names(num_classes: int) -> list[str]:
    return [f"class {i}" for i in range(num_classes)]


def ap(scores, labels) -> float:
    """AP of one class through the public function."""
    return float(per_class_average_precision(np.array(scores, float)[:, None], np.array(labels)[:, None])[0])


@pytest.mark.parametrize(("num_videos", "num_classes"), [(1, 2), (57, 3), (57, 5), (200, 40), (30, 1)])
def test_single_label_against_numpy_and_sklearn(num_videos, num_classes):
    rng = np.random.default_rng(num_videos + num_classes)
    scores = rng.normal(0, 20, (num_videos, num_classes))
    labels = rng.integers(0, num_classes, num_videos)
    metrics = compute_metrics(scores, one_hot(labels, num_classes), False, names(num_classes))
    order = np.argsort(-scores, axis=1)
    assert metrics["top1"] == np.mean(order[:, 0] == labels)
    assert metrics["top5"] == np.mean((order[:, :5] == labels[:, None]).any(1))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # sklearn warns of classes that are predicted and never true, and of one class only
        assert metrics["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(labels, order[:, 0]), abs=1e-15)
        expected = sklearn_confusion_matrix(labels, order[:, 0], labels=range(num_classes))
    assert metrics["classes_without_positives"] == num_classes - len(set(labels))
    matrix = confusion_matrix(scores, one_hot(labels, num_classes))
    np.testing.assert_array_equal(matrix[:, :-1], expected)
    assert not matrix[:, -1].any()


def test_mean_class_accuracy_leaves_out_classes_without_videos_even_when_predicted():
    """torchmetrics' macro average counts class 2 (predicted once, never true) as 0."""
    scores = np.array([[3.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
    targets = one_hot([0, 0, 1, 1], 3)
    metrics = compute_metrics(scores, targets, False, names(3))
    assert metrics["mean_class_accuracy"] == 0.75
    assert metrics["classes_without_positives"] == 1
    assert classes_without_positives(targets, names(3)) == ["class 2"]
    np.testing.assert_array_equal(per_class_accuracy(scores, targets), [1.0, 0.5, np.nan])


def test_large_single_label_logits_are_not_squashed():
    scores = np.array([[88.0, 89.0, 90.0, 91.0, 92.0, 93.0, 94.0]])
    for label, top1, top5 in [(6, 1, 1), (5, 0, 1), (2, 0, 1), (1, 0, 0)]:
        metrics = compute_metrics(scores, one_hot([label], 7), False, names(7))
        assert (metrics["top1"], metrics["top5"]) == (top1, top5)


def test_equal_scores_go_to_the_lower_class():
    metrics = compute_metrics(np.zeros((8, 8)), one_hot(range(8), 8), False, names(8))
    assert metrics["top1"] == 1 / 8
    assert metrics["top5"] == 5 / 8


@pytest.mark.parametrize("num_classes", [2, 5, 9])
def test_unreadable_single_label_rows_are_wrong_whatever_k_is(num_classes):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, num_classes, 20)
    scores = one_hot(labels, num_classes) * 5.0
    unreadable = [0, 4, 11]
    scores[unreadable] = -np.inf
    metrics = compute_metrics(scores, one_hot(labels, num_classes), False, names(num_classes))
    assert metrics["top1"] == metrics["top5"] == 17 / 20
    matrix = confusion_matrix(scores, one_hot(labels, num_classes))
    assert matrix.sum() == 20
    assert matrix[:, -1].sum() == 3
    counts = np.bincount(labels, minlength=num_classes)
    lost = np.bincount(labels[unreadable], minlength=num_classes)
    expected = ((counts - lost) / np.maximum(counts, 1))[counts > 0].mean()
    assert metrics["mean_class_accuracy"] == pytest.approx(expected, abs=1e-15)


def test_all_unreadable_and_no_rows():
    scores = np.full((4, 3), -np.inf)
    metrics = compute_metrics(scores, one_hot([0, 1, 2, 0], 3), False, names(3))
    assert (metrics["top1"], metrics["top5"], metrics["mean_class_accuracy"]) == (0, 0, 0)
    for multi_label in (False, True):
        empty = compute_metrics(np.zeros((0, 3)), np.zeros((0, 3)), multi_label, names(3))
        assert all(math.isnan(v) for k, v in empty.items() if k != "classes_without_positives")
        assert empty["classes_without_positives"] == 3


@pytest.mark.parametrize("decimals", [12, 0])  # 0: many ties
def test_multi_label_against_sklearn(decimals):
    rng = np.random.default_rng(5)
    targets = (rng.random((300, 11)) < 0.15).astype(np.float32)
    scores = np.round(rng.normal(0, 3, targets.shape) + 2 * targets, decimals)
    metrics = compute_metrics(scores, targets, True, names(11))
    assert metrics["mAP"] == pytest.approx(average_precision_score(targets, scores, average="macro"), abs=1e-12)
    assert metrics["mAP_weighted"] == pytest.approx(
        average_precision_score(targets, scores, average="weighted"), abs=1e-12
    )
    assert metrics["mAP_micro"] == pytest.approx(average_precision_score(targets, scores, average="micro"), abs=1e-12)
    expected = [average_precision_score(targets[:, k], scores[:, k]) for k in range(11)]
    np.testing.assert_allclose(per_class_average_precision(scores, targets), expected, atol=1e-12)


def test_measured_cases_of_average_precision():
    assert ap([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx(5 / 6, abs=1e-15)
    assert ap([0.5] * 4, [1, 0, 0, 0]) == ap([0.5] * 4, [0, 0, 0, 1]) == 0.25
    assert ap([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1]) == pytest.approx(0.4166666666666667, abs=1e-15)
    assert ap([20, 30, 40, -3], [0, 0, 1, 0]) == 1.0  # torchmetrics alone: 0.333
    assert ap([0.5, -np.inf, 0.2], [0, 1, 1]) == pytest.approx(average_precision_score([0, 1, 1], [0.5, -1e9, 0.2]))
    assert math.isnan(ap([0.1, 0.2], [0, 0]))


def test_monotone_maps_change_no_multi_label_metric():
    rng = np.random.default_rng(7)
    targets = (rng.random((60, 6)) < 0.3).astype(np.float32)
    scores = rng.normal(0, 1, targets.shape)
    reference = compute_metrics(scores, targets, True, names(6))
    for mapped in (scores * 1e6, scores * 1e-9, scores + 50, np.tanh(scores)):
        assert compute_metrics(mapped, targets, True, names(6)) == reference


def test_classes_without_positives_are_counted_and_not_averaged():
    rng = np.random.default_rng(8)
    targets = (rng.random((50, 5)) < 0.4).astype(np.float32)
    targets[:, [1, 3]] = 0
    scores = rng.normal(0, 1, targets.shape)
    metrics = compute_metrics(scores, targets, True, names(5))
    kept = [0, 2, 4]
    assert metrics["mAP"] == pytest.approx(average_precision_score(targets[:, kept], scores[:, kept]), abs=1e-12)
    assert metrics["classes_without_positives"] == 2
    assert classes_without_positives(targets, names(5)) == ["class 1", "class 3"]
    assert np.isnan(per_class_average_precision(scores, targets)[[1, 3]]).all()


def test_unreadable_multi_label_rows_rank_last():
    rng = np.random.default_rng(9)
    targets = (rng.random((40, 4)) < 0.4).astype(np.float32)
    scores = rng.normal(0, 1, targets.shape)
    scores[:6] = -np.inf
    finite = np.where(np.isinf(scores), -1e9, scores)
    metrics = compute_metrics(scores, targets, True, names(4))
    assert metrics["mAP"] == pytest.approx(average_precision_score(targets, finite), abs=1e-12)
    assert metrics["mAP"] < compute_metrics(scores[6:], targets[6:], True, names(4))["mAP"]


def test_default_dtype_is_left_alone():
    compute_metrics(np.zeros((2, 2)), np.eye(2), True, names(2))
    assert torch.get_default_dtype() == torch.float32


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="must both be"):
        compute_metrics(np.zeros((2, 3)), np.zeros((2, 2)), True, names(3))
    with pytest.raises(ValueError, match="row 1 hold NaN"):
        compute_metrics(np.array([[0.0, 1.0], [np.nan, 0.0]]), np.eye(2), False, names(2))
    with pytest.raises(ValueError, match="row 1 has 2 labels"):
        compute_metrics(np.zeros((2, 2)), np.array([[1, 0], [1, 1]]), False, names(2))


@pytest.mark.parametrize(("num_videos", "num_positives"), [(1, 1), (5, 1), (5, 3), (6, 6)])
def test_chance_of_map_is_the_mean_over_all_rankings(num_videos, num_positives):
    values = []
    for positives in combinations(range(num_videos), num_positives):  # every placing is equally likely
        labels = np.isin(np.arange(num_videos), positives)
        values.append(ap(-np.arange(num_videos), labels))
    targets = np.arange(num_videos)[:, None] < num_positives
    chance = chance_levels(targets, True)
    assert chance["mAP"] == pytest.approx(np.mean(values), abs=1e-14)
    assert chance["positive_rate"] == num_positives / num_videos
    assert ap(np.zeros(num_videos), targets[:, 0]) == pytest.approx(chance["positive_rate"])


def test_chance_is_what_random_scores_reach():
    rng = np.random.default_rng(11)
    targets = (rng.random((60, 8)) < 0.2).astype(np.float32)
    drawn = [compute_metrics(rng.random(targets.shape), targets, True, names(8)) for _ in range(60)]
    chance = chance_levels(targets, True)
    for key in ("mAP", "mAP_weighted", "mAP_micro"):
        assert np.mean([metrics[key] for metrics in drawn]) == pytest.approx(chance[key], abs=0.01)


def test_chance_of_single_label_metrics():
    targets = one_hot([0, 0, 0, 1, 2, 2], 10)
    expected = {"top1": 0.1, "top5": 0.5, "mean_class_accuracy": 0.1, "largest_class": 0.5}
    assert chance_levels(targets, False) == expected
    assert chance_levels(one_hot([0, 1], 3), False)["top5"] == 1.0
