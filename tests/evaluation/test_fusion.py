"""Fusion of views: exact values, and ranks that large logits do not tie."""

import numpy as np
import pytest

from vidtl.evaluation.scoring import FUSIONS, fuse, probabilities

LOGITS = np.random.default_rng(0).normal(0, 4, (12, 7)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_each_fusion_is_its_formula_for_any_order_of_views():
    wide, before = LOGITS.astype(np.float64), LOGITS.copy()
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
        fused = fuse(LOGITS, fusion, multi_label)
        assert fused.dtype == np.float64
        np.testing.assert_allclose(fused, scores, rtol=1e-14)
        np.testing.assert_allclose(fuse(LOGITS[::-1], fusion, multi_label), scores, rtol=1e-13)
    np.testing.assert_array_equal(LOGITS, before)
    np.testing.assert_array_equal(np.argsort(fuse(LOGITS, "max", True)), np.argsort(sigmoid.max(0)))


def test_large_logits_stay_distinct():
    logits = np.array([[20.0, 30.0, 40.0, 400.0, 401.0]], dtype=np.float32)
    assert np.all(np.diff(fuse(logits, "max", True)) > 0)
    assert np.all(np.diff(fuse(logits, "mean_logits", True)) > 0)
    assert len(set(fuse(logits[:, :3], "mean_probabilities", True))) == 3  # a float32 sigmoid has two 1.0 here


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
