"""Calibration error against a plain loop, and the diagram behind it."""

import numpy as np
import pytest

from vidtl.metrics import Outcomes
from vidtl.metrics.outcomes import NUM_BINS, Calibration


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
