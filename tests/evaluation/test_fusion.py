"""Fusion of views: exact values, and ranks that large logits do not tie."""

import numpy as np
import pytest

from vidtl.evaluation.scoring import FUSIONS, fuse, probabilities


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 4, (12, 7)).astype(np.float32)


def test_each_fusion_is_its_formula(logits):
    wide = logits.astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-wide))
    expected = {
        ("mean_logits", False): wide.mean(0),
        ("mean_logits", True): wide.mean(0),
        ("mean_probabilities", False): softmax(wide).mean(0),
        ("mean_probabilities", True): sigmoid.mean(0),
        ("max", False): softmax(wide).max(0),
        ("max", True): wide.max(0),
    }
    assert {name for name, _ in expected} == set(FUSIONS)
    for (fusion, multi_label), scores in expected.items():
        fused = fuse(logits, fusion, multi_label)
        assert fused.dtype == np.float64
        np.testing.assert_allclose(fused, scores, rtol=1e-14)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_order_of_views_does_not_matter_and_input_is_untouched(logits, fusion, multi_label):
    before = logits.copy()
    shuffled = logits[np.random.default_rng(1).permutation(len(logits))]
    np.testing.assert_allclose(fuse(logits, fusion, multi_label), fuse(shuffled, fusion, multi_label), rtol=1e-13)
    np.testing.assert_array_equal(logits, before)


def test_multi_label_max_ranks_as_the_largest_probability_would(logits):
    fused = fuse(logits, "max", True)
    probabilities = (1 / (1 + np.exp(-logits.astype(np.float64)))).max(0)
    np.testing.assert_array_equal(np.argsort(fused), np.argsort(probabilities))


def test_large_logits_stay_distinct():
    logits = np.array([[20.0, 30.0, 40.0, 400.0, 401.0]], dtype=np.float32)
    assert np.all(np.diff(fuse(logits, "max", True)) > 0)
    assert np.all(np.diff(fuse(logits, "mean_logits", True)) > 0)
    assert len(set(fuse(logits[:, :3], "mean_probabilities", True))) == 3  # a float32 sigmoid has two 1.0 here


def test_single_label_max_compares_probabilities_of_different_views():
    """The second view has the larger logit for class 0, the first is surer of it."""
    logits = np.array([[2.0, 0.0], [5.0, 6.0]])
    np.testing.assert_allclose(fuse(logits, "max", False), softmax(logits).max(0))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_probabilities(fusion, multi_label):
    logits = np.random.default_rng(3).normal(0, 30, (8, 4, 6))
    scores = np.stack([fuse(each, fusion, multi_label) for each in logits])
    scores[1] = -np.inf
    chances = probabilities(scores, fusion, multi_label)
    assert np.isnan(chances[1]).all()
    kept = np.delete(chances, 1, axis=0)
    assert ((kept >= 0) & (kept <= 1)).all()
    assert (np.argsort(chances[0], kind="stable") == np.argsort(scores[0], kind="stable")).all() or multi_label
    if not multi_label and fusion != "max":
        np.testing.assert_allclose(kept.sum(1), 1)
