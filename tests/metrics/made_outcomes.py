"""Outcomes of made-up logits."""

import numpy as np

from vidtl.evaluation.scoring import probabilities
from vidtl.metrics import Outcomes


def made_outcomes(scores, targets, multi_label: bool = False) -> Outcomes:
    scores = np.asarray(scores, np.float64)
    chances = probabilities(scores, "mean_logits", multi_label)
    return Outcomes(scores=scores, targets=np.asarray(targets) > 0, probabilities=chances, multi_label=multi_label)


def one_hot(labels, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[labels]


def random_outcomes(seed: int, num_videos: int, num_classes: int, multi_label: bool, decimals: int = 9):
    """Random logits that correlate with the labels; few decimals make ties."""
    rng = np.random.default_rng(seed)
    if multi_label:
        targets = rng.random((num_videos, num_classes)) < 0.2
    else:
        targets = one_hot(rng.integers(0, num_classes, num_videos), num_classes) > 0
    scores = np.round(rng.normal(0, 2, targets.shape) + 2 * targets, decimals)
    return made_outcomes(scores, targets, multi_label)
