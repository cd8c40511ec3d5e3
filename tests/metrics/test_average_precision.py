"""Average precision on the cases that distinguish its two definitions, beside the libraries themselves."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import binary_average_precision

from tests.metrics.made_outcomes import random_outcomes
from vidtl.metrics.average_precision import average_precisions
from vidtl.metrics.charades import official_scores
from vidtl.runtime.seeding import generator

TABLE = {
    # case: scores, labels, official, ours as scikit-learn, torchmetrics alone in float32
    "distinct scores": ([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], 0.8333, 0.8333, 0.8333),
    "all tied, the positive first": ([0.5] * 4, [1, 0, 0, 0], 1.0, 0.25, 0.25),
    "all tied, the positive last": ([0.5] * 4, [0, 0, 0, 1], 0.25, 0.25, 0.25),
    "partial tie": ([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1], 0.5, 0.4167, 0.4167),
    "no positives": ([0.9, 0.5], [0, 0], math.nan, math.nan, 0.0),
    "a score of -inf": ([0.9, -math.inf, 0.2], [0, 1, 0], 0.3333, 0.3333, 0.3333),
    "logits that saturate": ([20, 30, 40, -3], [0, 0, 1, 0], 1.0, 1.0, 0.3333),
}


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.filterwarnings("ignore")  # both libraries warn of a class without positives
def test_the_published_table_row_by_row(case):
    scores, labels, official, grouped, alone = TABLE[case]
    scores, labels = np.array(scores, float), np.array(labels)
    # A second class labels every video, so that none is without actions and left out.
    two = np.stack([scores, np.zeros(len(scores))], axis=1), np.stack([labels, np.ones(len(labels), int)], axis=1)
    found = official_scores(*two)
    assert found.average_precisions[0] == pytest.approx(official, abs=5e-5, nan_ok=True)
    assert math.isnan(found.mean_ap) == math.isnan(official)
    ours = average_precisions(scores[:, None], labels[:, None] > 0)[0]
    assert ours == pytest.approx(grouped, abs=5e-5, nan_ok=True)
    if labels.any() and np.isfinite(scores).all():
        assert ours == pytest.approx(average_precision_score(labels, scores), abs=1e-15)
    theirs = float(binary_average_precision(torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)))
    assert theirs == pytest.approx(alone, abs=5e-5)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("decimals", [9, 0])  # 0: many ties
def test_rankings_of_resampled_videos_are_those_of_repeated_videos(decimals):
    outcomes = random_outcomes(3, 60, 7, True, decimals)
    outcomes.scores[5] = -np.inf
    for seed in range(4):
        times = np.bincount(generator(seed).integers(0, 60, 60), minlength=60)
        repeated = outcomes[np.repeat(np.arange(60), times)]
        sums, totals = outcomes.rankings.precision_sums(times)
        np.testing.assert_allclose(sums[totals > 0] / totals[totals > 0], repeated.per_class[totals > 0], atol=1e-12)
        np.testing.assert_array_equal(totals, repeated.targets.sum(axis=0))
