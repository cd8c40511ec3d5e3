"""Intervals against published values, a plain bootstrap, and how often they hold the truth."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests.evaluation.tiny_evaluation import make_records, run
from vidtl.metrics.charades import official_scores
from vidtl.metrics.intervals import _Rankings, bootstrap, confidence_intervals, wilson
from vidtl.runtime.seeding import generator


def test_wilson_is_the_formula():
    """The limits p of |p - share| = z sqrt(p (1 - p) / n) are the roots of a quadratic equation."""
    for right, total in [(0, 1), (0, 10), (1, 29), (15, 20), (81, 263), (148, 148), (9999, 10000)]:
        z, share = 1.959963984540054, right / total
        roots = np.roots([1 + z**2 / total, -(2 * share + z**2 / total), share**2])
        low, high, method = wilson(right, total)
        assert (low, high) == pytest.approx(sorted(roots.real), abs=1e-7)
        assert 0 <= low <= share <= high <= 1
        assert method == "wilson"
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
    for (right, total), limits in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
    }.items():
        assert wilson(right, total)[:2] == pytest.approx(limits, abs=5e-5)


def resampled(scores: np.ndarray, targets: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat(np.arange(len(times)), times)
    return scores[rows], targets[rows]


@pytest.mark.parametrize("decimals", [9, 0])  # 0: many ties
def test_weighted_rankings_are_those_of_repeated_videos(decimals):
    rng = np.random.default_rng(3)
    targets = (rng.random((60, 7)) < 0.3).astype(np.float32)
    scores = np.round(rng.normal(0, 2, targets.shape) + targets, decimals)
    scores[5] = -np.inf
    grouped = _Rankings.of(scores, targets, keep_order=False)
    for seed in range(5):
        times = np.bincount(generator(seed).integers(0, 60, 60), minlength=60)
        drawn_scores, drawn_targets = resampled(np.maximum(scores, -1e9), targets, times)
        kept = drawn_targets.any(axis=0)
        for place, average in enumerate(("macro", "weighted")):
            expected = average_precision_score(drawn_targets[:, kept], drawn_scores[:, kept], average=average)
            assert grouped.means(times)[place] == pytest.approx(expected, abs=1e-12)


def test_whole_rankings_are_the_official_ones():
    rng = np.random.default_rng(4)
    targets = (rng.random((50, 6)) < 0.4).astype(np.float32)
    targets[:, 0] = 1
    scores = np.round(rng.normal(0, 1, targets.shape), 0)
    official = official_scores(scores, targets)
    means = _Rankings.of(scores, targets, keep_order=True).means(np.ones(50, np.int64))
    assert means == pytest.approx((official.mean_ap, official.weighted_ap), abs=1e-12)


def test_limits_surround_the_metric_and_are_reproducible():
    for multi_label in (False, True):
        result = run(make_records(40, multi_label), broken=(3,))
        intervals = confidence_intervals(result)
        assert set(intervals) >= ({"mAP", "mAP_weighted"} if multi_label else {"top1", "top5", "mean_class_accuracy"})
        for name, (low, high, _) in intervals.items():
            assert low < result.metrics[name] < high
        assert confidence_intervals(result) == intervals


def test_no_limits_where_all_resamples_agree():
    low, high, _ = bootstrap(lambda times: {"share": 1.0}, 10, 10)["share"]
    assert math.isnan(low)
    assert math.isnan(high)


def test_most_intervals_of_a_mean_hold_the_truth():
    """95 % of them would; with 60 draws of 80 videos fewer than 51 (85 %) has a chance of about 1 in 1,000."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(60):
        values = rng.random(80)
        low, high, method = bootstrap(
            lambda times, v=values: {"m": float((times * v).sum() / times.sum())}, 80, 4_000_000
        )["m"]
        held += low <= 0.5 <= high
    assert method == "centred bootstrap, 100 resamples"
    assert held >= 51
