"""Every metric of the table against scikit-learn, torchmetrics and numpy, with its chance level."""

import math
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torch.nn import functional

from tests.metrics.made_outcomes import made_outcomes, one_hot, random_outcomes
from vidtl.metrics import METRICS, Outcomes, chance_levels, compute_metrics


@pytest.mark.parametrize(("num_videos", "num_classes"), [(1, 2), (57, 3), (200, 40), (30, 1)])
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes that are predicted and never true
def test_single_label_against_numpy_and_sklearn(num_videos, num_classes):
    outcomes = random_outcomes(num_videos, num_videos, num_classes, False)
    labels, order = outcomes.labels, np.argsort(-outcomes.scores, axis=1)
    metrics = compute_metrics(outcomes)
    top5 = {"top5": np.mean((order[:, :5] == labels[:, None]).any(1))} if num_classes >= 6 else {}
    assert list(metrics) == ["top1", *top5, "mean_class_accuracy", "f1_macro", "ece", "loss"]
    assert metrics.items() >= {"top1": np.mean(order[:, 0] == labels), **top5}.items()
    loss = functional.cross_entropy(torch.tensor(outcomes.scores), torch.tensor(labels))
    assert metrics["loss"] == pytest.approx(float(loss), abs=1e-12)
    assert metrics["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(labels, order[:, 0]), abs=1e-15)
    present = sorted(set(labels.tolist()))
    expected = f1_score(labels, order[:, 0], labels=present, average="macro")
    assert metrics["f1_macro"] == pytest.approx(expected, abs=1e-15)
    matrix = sklearn_confusion_matrix(labels, order[:, 0], labels=range(num_classes))
    np.testing.assert_array_equal(outcomes.confusion, np.c_[matrix, np.zeros(num_classes, int)])


@pytest.mark.parametrize(("decimals", "scale"), [(12, 1), (0, 1), (12, 50)])  # many ties; a sigmoid that saturates
def test_multi_label_against_sklearn(decimals, scale):
    outcomes = random_outcomes(5, 300, 11, True, decimals)
    outcomes = made_outcomes(scale * outcomes.scores, outcomes.targets, True)
    scores, targets = outcomes.scores, outcomes.targets
    metrics = compute_metrics(outcomes)
    for name, average in (("mAP", "macro"), ("mAP_weighted", "weighted")):
        assert metrics[name] == pytest.approx(average_precision_score(targets, scores, average=average), abs=1e-12)
    expected = [average_precision_score(targets[:, k], scores[:, k]) for k in range(11)]
    np.testing.assert_allclose(outcomes.per_class, expected, atol=1e-12)
    loss = functional.binary_cross_entropy_with_logits(torch.tensor(scores), torch.tensor(targets, dtype=torch.float64))
    assert scale > 1 or metrics["loss"] == pytest.approx(float(loss), abs=1e-12)
    named = outcomes.probabilities > 0.5
    assert metrics["f1_macro"] == pytest.approx(f1_score(targets, named, average="macro"), abs=1e-12)


def test_classes_without_videos_are_left_out_of_means_even_when_predicted():
    """torchmetrics' macro average counts class 2 (predicted once, never true) as 0."""
    targets = one_hot([0, 0, 1, 1], 3)
    outcomes = made_outcomes([[3.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]], targets)
    assert compute_metrics(outcomes)["mean_class_accuracy"] == 0.75
    assert compute_metrics(outcomes)["f1_macro"] == pytest.approx((1 + 2 / 3) / 2)
    np.testing.assert_array_equal(outcomes.per_class, [1.0, 0.5, np.nan])
    multi = random_outcomes(8, 50, 5, True)
    multi.targets[:, [1, 3]] = False
    metrics, targets, scores = compute_metrics(multi), multi.targets[:, [0, 2, 4]], multi.scores[:, [0, 2, 4]]
    assert metrics["mAP"] == pytest.approx(average_precision_score(targets, scores), abs=1e-12)
    assert np.isnan(multi.per_class).tolist() == [False, True, False, True, False]
    assert torch.get_default_dtype() == torch.float32
    assert metrics["f1_macro"] == pytest.approx(f1_score(targets, scores > 0, average="macro"), abs=1e-12)
    assert math.isnan(metrics["mAP_charades"])


def test_large_logits_are_not_squashed_and_ties_go_to_the_lower_class():
    scores = np.array([[88.0, 89.0, 90.0, 91.0, 92.0, 93.0, 94.0]])
    for label, top1, top5 in [(6, 1, 1), (5, 0, 1), (2, 0, 1), (1, 0, 0)]:
        metrics = compute_metrics(made_outcomes(scores, one_hot([label], 7)))
        assert (metrics["top1"], metrics["top5"]) == (top1, top5)
    metrics = compute_metrics(made_outcomes(np.zeros((8, 8)), one_hot(range(8), 8)))
    assert (metrics["top1"], metrics["top5"]) == (1 / 8, 5 / 8)


@pytest.mark.parametrize("num_classes", [2, 5, 9])
def test_unreadable_single_label_videos_are_wrong_whatever_k_is(num_classes):
    labels, unreadable = np.random.default_rng(3).integers(0, num_classes, 20), [0, 4, 11]
    scores = one_hot(labels, num_classes) * 5.0
    scores[unreadable] = -np.inf
    outcomes = made_outcomes(scores, one_hot(labels, num_classes))
    metrics = compute_metrics(outcomes)
    assert metrics["top1"] == metrics.get("top5", 0.85) == 17 / 20
    assert metrics["loss"] == pytest.approx(np.log(1 + (num_classes - 1) * np.exp(-5)))  # of the readable ones
    assert (outcomes.confusion.sum(), outcomes.confusion[:, -1].sum()) == (20, 3)
    answers = np.where(np.isin(np.arange(20), unreadable), -1, labels)
    expected = f1_score(labels, answers, labels=sorted(set(labels.tolist())), average="macro")
    assert metrics["f1_macro"] == pytest.approx(expected, abs=1e-15)
    assert metrics["mean_class_accuracy"] == pytest.approx(np.nanmean(outcomes.per_class))


def test_unreadable_multi_label_videos_rank_last_and_have_no_class():
    outcomes = random_outcomes(9, 40, 4, True)
    scores = outcomes.scores.copy()
    scores[:6] = -np.inf
    broken = compute_metrics(made_outcomes(scores, outcomes.targets, True))
    finite = np.where(np.isinf(scores), -1e9, scores)
    assert broken["mAP"] == pytest.approx(average_precision_score(outcomes.targets, finite), abs=1e-12)
    assert broken["mAP"] < compute_metrics(outcomes[np.arange(40) >= 6])["mAP"]
    assert broken["f1_macro"] == pytest.approx(f1_score(outcomes.targets, finite > 0, average="macro"), abs=1e-12)


def test_nothing_readable_and_no_videos():
    metrics = compute_metrics(made_outcomes(np.full((4, 3), -np.inf), one_hot([0, 1, 2, 0], 3)))
    assert [metrics[name] for name in ("top1", "mean_class_accuracy", "f1_macro")] == [0] * 3
    assert math.isnan(metrics["loss"])
    for multi_label in (False, True):
        empty = compute_metrics(made_outcomes(np.zeros((0, 3)), np.zeros((0, 3)), multi_label))
        assert all(map(math.isnan, empty.values()))


def test_wrong_input_is_refused():
    for scores, targets, message in [
        (np.zeros((2, 3)), np.zeros((2, 2)), "must all be"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), np.eye(2), "row 1"),
        (np.zeros((2, 2)), np.array([[1, 0], [1, 1]]), "row 1 has 2 labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            Outcomes(scores=scores, targets=targets, probabilities=scores, multi_label=False)


@pytest.mark.parametrize(("num_videos", "num_positives"), [(1, 1), (5, 1), (5, 3), (6, 6)])
def test_chance_of_map_is_the_mean_over_all_rankings(num_videos, num_positives):
    def ap(scores, labels) -> float:
        return float(made_outcomes(np.array(scores, float)[:, None], labels[:, None], True).per_class[0])

    videos, chance = np.arange(num_videos), chance_levels(np.arange(num_videos)[:, None] < num_positives, True)
    places = combinations(range(num_videos), num_positives)  # every placing is equally likely
    assert chance["mAP"] == pytest.approx(np.mean([ap(-videos, np.isin(videos, each)) for each in places]), abs=1e-14)
    assert chance["positive_rate"] == num_positives / num_videos
    assert ap(np.zeros(num_videos), videos < num_positives) == pytest.approx(chance["positive_rate"])


@pytest.mark.parametrize("multi_label", [False, True])
def test_chance_is_what_random_scores_reach(multi_label):
    rng, targets = np.random.default_rng(11), random_outcomes(11, 60, 6, multi_label).targets
    drawn = [compute_metrics(made_outcomes(rng.normal(0, 1, targets.shape), targets, multi_label)) for _ in range(40)]
    chance = chance_levels(targets, multi_label)
    named = [name for name, metric in METRICS.items() if metric.chance and metric.applies_to(multi_label, 6)]
    assert set(chance) == {*named, "positive_rate" if multi_label else "largest_class"}
    for name in named:
        assert np.mean([metrics[name] for metrics in drawn]) == pytest.approx(chance[name], abs=0.02), name


def test_chance_of_single_label_metrics():
    assert chance_levels(one_hot([0, 0, 0, 1, 2, 2], 10), False)["largest_class"] == 0.5
    assert chance_levels(one_hot([0, 0], 1), False)["f1_macro"] == 1.0


def test_reading_the_table_loads_no_torch():
    code = "import sys, vidtl.metrics; sys.exit(bool({'torch', 'torchmetrics', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
