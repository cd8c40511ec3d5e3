"""Average precision in the two definitions that group equal scores; `vidtl.metrics.charades` has the third.

Videos with equal scores have no order of their own. torchmetrics and scikit-learn judge them together: the precision at
their common threshold counts for each positive among them. The official Charades scorer keeps annotation order, so
that a tied positive gains or loses by where its video is listed.

| case                                            | official     | torchmetrics, scikit-learn    |
|-------------------------------------------------|--------------|-------------------------------|
| four equal scores, the positive first or last   | 1 or 1/4     | 1/4                           |
| scores .9 .5 .5 .1 of labels 0 1 0 1            | 0.5          | 0.4167                        |
| a class without positives                       | NaN, as mAP  | left out; 0 by scikit-learn   |
| a score of -inf                                 | ranks last   | ranks last (an error there)   |

torchmetrics squashes scores outside [0, 1] with a float32 sigmoid, which makes ties of large logits, and divides in the
default dtype. Both are avoided here: it sees ranks in [0, 1] instead of scores, under a float64 default.
Axes: N videos, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_average_precision


def per_class_average_precision(scores_NK: NDArray[np.float64], targets_NK: NDArray[np.generic]) -> NDArray[np.float64]:
    """Average precision [K] by torchmetrics; NaN for classes without positives."""
    targets: NDArray[np.bool_] = np.asarray(targets_NK).astype(bool)
    columns = zip(np.asarray(scores_NK).T, targets.T, strict=True)
    return np.array([grouped_average_precision(scores, target) for scores, target in columns], dtype=np.float64)


def grouped_average_precision(scores_N: NDArray[np.float64], targets_N: NDArray[np.bool_]) -> float:
    """Average precision of one ranking, by torchmetrics; NaN without positives, where it is undefined."""
    if not targets_N.any():
        return float("nan")
    distinct, ranks = np.unique(scores_N, return_inverse=True)
    with float64_default():
        squashed = torch.from_numpy(ranks.reshape(-1) / max(len(distinct) - 1, 1))
        return float(binary_average_precision(squashed, torch.from_numpy(targets_N.astype(np.int64)), thresholds=None))


def sklearn_average_precisions(scores_NK: NDArray[np.float64], targets_NK: NDArray[np.generic]) -> NDArray[np.float64]:
    """What `sklearn.metrics.average_precision_score` gives for each class [K]: the sum of (R_n - R_(n-1)) P_n.

    P_n and R_n are precision and recall among the videos that score at least the n-th distinct value. A class without
    positives has 0, and its 0 counts in scikit-learn's macro average. -inf, which scikit-learn refuses, ranks last.
    """
    targets: NDArray[np.bool_] = np.asarray(targets_NK).astype(bool)
    order = np.argsort(-scores_NK, axis=0, kind="stable")
    scores = np.take_along_axis(np.asarray(scores_NK), order, axis=0)
    hits = np.take_along_axis(targets, order, axis=0)
    found = hits.cumsum(axis=0)
    group_ends = np.ones(scores.shape, bool)
    group_ends[:-1] = scores[1:] != scores[:-1]
    precision = found / np.arange(1, len(scores) + 1)[:, None]
    result = np.zeros(scores.shape[1])
    for k in range(scores.shape[1]):
        ends = np.flatnonzero(group_ends[:, k])
        if len(ends) and found[-1, k]:
            new = np.diff(found[ends, k], prepend=0)
            result[k] = float((new * precision[ends, k]).sum() / found[-1, k])
    return result


@contextmanager
def float64_default() -> Iterator[None]:
    """torchmetrics divides its integer counts in PyTorch's default dtype; float32 would cost nine digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
