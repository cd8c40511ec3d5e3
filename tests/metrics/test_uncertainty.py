"""Intervals against published values, and how often they hold the truth; calibration against a plain loop."""

import numpy as np
import pytest

from tests.metrics.made_outcomes import random_outcomes
from vidtl.metrics import METRICS, Outcomes, compute_metrics, confidence_intervals
from vidtl.metrics.intervals import bootstrap, wilson
from vidtl.metrics.outcomes import NUM_BINS, Calibration


@pytest.mark.parametrize(("right", "total"), [(0, 1), (0, 10), (1, 29), (148, 148), (9999, 10000)])
def test_wilson_is_the_formula(right, total):
    """The limits p of |p - share| = z sqrt(p (1 - p) / n) are the roots of a quadratic equation."""
    z, share = 1.959963984540054, right / total
    roots = np.roots([1 + z**2 / total, -(2 * share + z**2 / total), share**2])
    low, high, method = wilson(right, total)
    assert (low, high) == pytest.approx(sorted(roots.real), abs=1e-7)
    assert 0 <= low <= share <= high <= 1
    assert method == "wilson"


@pytest.mark.parametrize("multi_label", [False, True])
def test_limits_surround_each_metric_and_are_reproducible(multi_label):
    outcomes = random_outcomes(6, 40, 6, multi_label)
    outcomes.scores[3] = -np.inf
    metrics = compute_metrics(outcomes)
    intervals = confidence_intervals(outcomes, metrics)
    assert set(intervals) == {name for name in metrics if METRICS[name].interval}
    for name, (low, high, _) in intervals.items():
        assert low < metrics[name] < high, name
    assert confidence_intervals(outcomes, metrics) == intervals


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("decimals", [9, 0])  # 0: many ties
@pytest.mark.parametrize("seed", [1, 2])
def test_statistics_of_resampled_videos_are_the_metrics_of_repeated_videos(multi_label, decimals, seed):
    outcomes = random_outcomes(7, 30, 4, multi_label, decimals)
    outcomes.scores[5] = -np.inf
    times = np.bincount(np.random.default_rng(seed).integers(0, 30, 30), minlength=30)
    repeated = outcomes[np.repeat(np.arange(30), times)]
    for metric in METRICS.values():
        official = metric.name.startswith("mAP_charades")  # copies of a video are adjacent in resamples
        if metric.applies_to(multi_label, 4) and callable(metric.interval) and not official:
            found = metric.interval(outcomes)(times)
            assert found == pytest.approx(metric.function(repeated), abs=1e-12), metric.name


def test_most_intervals_of_a_mean_hold_the_truth():
    """95 % of them would; with 60 draws of 80 videos fewer than 51 (85 %) has a chance of about 1 in 1,000."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(60):
        values = rng.random(80)
        mean = {"m": lambda times, v=values: float((times * v).sum() / times.sum())}
        low, high, method = bootstrap(mean, 80, 4_000_000)["m"]
        held += low <= 0.5 <= high
    assert method == "centered bootstrap, 100 resamples"
    assert held >= 51
    assert np.isnan(bootstrap({"share": lambda times: 1.0}, 10, 10)["share"][:2]).all()  # all resamples agree


def calibrated(chances: np.ndarray, targets: np.ndarray, multi_label: bool) -> Calibration:
    scores = np.where(np.isnan(chances), -np.inf, chances)
    return Outcomes(scores=scores, targets=targets > 0, probabilities=chances, multi_label=multi_label).calibration


def expected_error(confidences: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((confidences * NUM_BINS).astype(int), NUM_BINS - 1)
    inside = [bins == b for b in set(bins.tolist())]
    return sum(rows.mean() * abs(right[rows].mean() - confidences[rows].mean()) for rows in inside)


@pytest.mark.parametrize(("num_videos", "num_classes"), [(1, 1), (3, 2), (400, 7)])
@pytest.mark.parametrize("multi_label", [False, True])
def test_error_of_best_classes_or_of_all_decisions(num_videos, num_classes, multi_label):
    rng = np.random.default_rng(num_videos)
    chances = rng.dirichlet(np.full(num_classes, 0.3), num_videos)
    targets = np.eye(num_classes)[rng.integers(0, num_classes, num_videos)]
    confidences, right = chances.max(1), targets[range(num_videos), chances.argmax(1)]
    if multi_label:
        confidences, right = chances.ravel(), targets.ravel()
    found = calibrated(chances, targets, multi_label)
    assert found.ece == pytest.approx(expected_error(confidences, right), abs=1e-12)
    assert found.counts.sum() == len(confidences)


def test_the_diagram_gives_the_error():
    rng = np.random.default_rng(2)
    chances = np.round(rng.dirichlet(np.full(5, 0.1), 300), 1)  # bin edges, exact zeros and ones
    chances[:40] = np.eye(5)[0]
    found = calibrated(chances, np.eye(5)[rng.integers(0, 5, 300)], False)
    filled = found.counts > 0
    gaps = np.abs(found.accuracies - found.confidences)[filled]
    assert (gaps * found.counts[filled]).sum() / 300 == pytest.approx(found.ece, abs=1e-12)
    assert np.isnan(found.accuracies[~filled]).all()
    inside = (found.edges[:-1] <= found.confidences + 1e-12) & (found.confidences - 1e-12 < found.edges[1:])
    assert inside[filled].all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_unreadable_videos_are_left_out(multi_label):
    rng = np.random.default_rng(4)
    chances, targets = rng.dirichlet(np.ones(3), 12), np.eye(3)[rng.integers(0, 3, 12)]
    broken, kept = chances.copy(), np.delete(np.arange(12), [0, 7])
    broken[[0, 7]] = np.nan
    assert calibrated(broken, targets, multi_label).ece == calibrated(chances[kept], targets[kept], multi_label).ece
    assert np.isnan(calibrated(np.full((2, 3), np.nan), targets[:2], multi_label).ece)
