"""The three definitions of average precision on the cases that tell them apart, beside the libraries themselves."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import binary_average_precision, multilabel_average_precision
from vidtl.metrics.classification import compute_metrics

from vidtl.metrics.average_precision import per_class_average_precision, sklearn_average_precisions
from vidtl.metrics.charades import official_scores

INF = float("inf")

TABLE = {
    # case: scores, labels, official, scikit-learn (None: an error there), torchmetrics alone
    "distinct scores": ([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], 0.8333, 0.8333, 0.8333),
    "all tied, the positive first": ([0.5] * 4, [1, 0, 0, 0], 1.0, 0.25, 0.25),
    "all tied, the positive last": ([0.5] * 4, [0, 0, 0, 1], 0.25, 0.25, 0.25),
    "partial tie": ([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1], 0.5, 0.4167, 0.4167),
    "no positives": ([0.9, 0.5], [0, 0], math.nan, 0.0, 0.0),
    "a score of -inf": ([0.9, -INF, 0.2], [0, 1, 0], 0.3333, None, 0.3333),
    "logits that saturate": ([20, 30, 40, -3], [0, 0, 1, 0], 1.0, 1.0, 0.3333),
}


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.filterwarnings("ignore")  # both libraries warn of a class without positives
def test_the_published_table_row_by_row(case):
    scores, labels, official, sklearn, alone = TABLE[case]
    scores, labels = np.array(scores, float), np.array(labels)
    # A second class labels every video, so that none is without actions and drops out.
    two = np.stack([scores, np.zeros(len(scores))], axis=1), np.stack([labels, np.ones(len(labels), int)], axis=1)
    found = official_scores(*two)
    assert found.average_precisions[0] == pytest.approx(official, abs=5e-5, nan_ok=True)
    assert math.isnan(found.mean_ap) == math.isnan(official)  # one class poisons the mean
    compatible = sklearn_average_precisions(scores[:, None], labels[:, None])[0]
    if sklearn is None:
        assert compatible == pytest.approx(alone, abs=5e-5)
        with pytest.raises(ValueError, match="infinity"):
            average_precision_score(labels, scores)
    else:
        assert compatible == pytest.approx(sklearn, abs=5e-5)
        assert compatible == pytest.approx(average_precision_score(labels, scores), abs=1e-15)
    theirs = float(binary_average_precision(torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)))
    assert theirs == pytest.approx(alone, abs=5e-5)
    ours = per_class_average_precision(scores[:, None], labels[:, None])[0]
    if not labels.any():
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(compatible, abs=1e-15)


def test_binned_thresholds_are_another_figure():
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([1, 0, 1, 0])
    assert float(binary_average_precision(scores, labels, thresholds=5)) == pytest.approx(0.583, abs=5e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_class_without_positives_counts_in_the_libraries_macro_average_and_in_ours_by_that_name():
    scores = np.random.default_rng(0).random((30, 4))
    targets = (np.random.default_rng(1).random((30, 4)) < 0.4).astype(int)
    targets[:, 2] = 0
    metrics = compute_metrics(scores, targets, True, list("abcd"))
    assert metrics["mAP_sklearn"] == pytest.approx(average_precision_score(targets, scores, average="macro"), abs=1e-12)
    assert metrics["mAP_sklearn"] == pytest.approx(metrics["mAP"] * 3 / 4, abs=1e-12)
    theirs = multilabel_average_precision(torch.from_numpy(scores), torch.from_numpy(targets), num_labels=4)
    assert float(theirs) == pytest.approx(metrics["mAP_sklearn"], abs=1e-6)


@pytest.mark.parametrize("decimals", [9, 1, 0])  # fewer decimals: more ties
def test_sklearn_mode_is_sklearns(decimals):
    rng = np.random.default_rng(decimals)
    for num_videos in (1, 2, 17, 200):
        targets = (rng.random((num_videos, 13)) < 0.3).astype(int)
        targets[0] = 1
        scores = np.round(rng.normal(0, 1, targets.shape), decimals)
        expected = [average_precision_score(targets[:, k], scores[:, k]) for k in range(13)]
        np.testing.assert_allclose(sklearn_average_precisions(scores, targets), expected, atol=1e-12)
