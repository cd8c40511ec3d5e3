"""Calibration error against a plain loop, and the diagram behind it."""

import numpy as np
import pytest

from tests.evaluation.tiny_evaluation import make_records, run
from vidtl.evaluation.fusion import FUSIONS, are_logits, fuse, probabilities
from vidtl.metrics.calibration import NUM_BINS, calibration


def expected_error(confidences: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((confidences * NUM_BINS).astype(int), NUM_BINS - 1)
    total = 0.0
    for b in set(bins.tolist()):
        inside = bins == b
        total += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    return total


@pytest.mark.parametrize(("num_videos", "num_classes"), [(1, 1), (3, 2), (400, 7)])
def test_single_label_is_judged_by_its_best_class(num_videos, num_classes):
    rng = np.random.default_rng(num_videos)
    chances = rng.dirichlet(np.full(num_classes, 0.3), num_videos)
    labels = rng.integers(0, num_classes, num_videos)
    found = calibration(chances, np.eye(num_classes)[labels], False)
    right = chances.argmax(1) == labels
    assert found.ece == pytest.approx(expected_error(chances.max(1), right), abs=1e-12)
    assert found.counts.sum() == num_videos


def test_multi_label_is_judged_by_all_decisions():
    rng = np.random.default_rng(1)
    chances = rng.random((200, 9))
    targets = rng.random((200, 9)) < chances**2
    found = calibration(chances, targets, True)
    assert found.ece == pytest.approx(expected_error(chances.ravel(), targets.ravel()), abs=1e-12)
    assert found.counts.sum() == 1800
    assert found.ece == pytest.approx(1 / 6, abs=0.03)  # the mean of p - p^2


def test_the_diagram_gives_the_error():
    rng = np.random.default_rng(2)
    chances = np.round(rng.dirichlet(np.full(5, 0.1), 300), 1)  # bin edges, exact zeros and ones
    chances[:40] = np.eye(5)[0]
    found = calibration(chances, np.eye(5)[rng.integers(0, 5, 300)], False)
    filled = found.counts > 0
    gaps = np.abs(found.accuracies - found.confidences)[filled]
    assert (gaps * found.counts[filled]).sum() / 300 == pytest.approx(found.ece, abs=1e-12)
    assert np.isnan(found.accuracies[~filled]).all()
    assert ((found.edges[:-1] <= found.confidences + 1e-12) | ~filled).all()
    assert ((found.confidences - 1e-12 < found.edges[1:]) | ~filled).all()


def test_unreadable_videos_have_no_confidence():
    for multi_label in (False, True):
        records = make_records(12, multi_label)
        result = run(records, broken=(0, 7))
        assert np.isnan(result.probabilities[[0, 7]]).all()
        kept = [i for i in range(12) if i not in (0, 7)]
        alone = calibration(result.probabilities[kept], result.targets[kept], multi_label)
        assert result.metrics["ece"] == result.metrics_readable["ece"] == alone.ece
        nothing = run(records, broken=range(12))
        assert np.isnan(nothing.metrics["ece"])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_probabilities(fusion, multi_label):
    logits = np.random.default_rng(3).normal(0, 30, (8, 4, 6))
    scores = np.stack([fuse(each, fusion, multi_label) for each in logits])
    chances = probabilities(scores, fusion, multi_label)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.argsort(chances[0], kind="stable") == np.argsort(scores[0], kind="stable")).all() or multi_label
    assert are_logits(fusion, multi_label) == (not np.array_equal(chances, scores))
    if not multi_label and fusion != "max":
        np.testing.assert_allclose(chances.sum(1), 1)
