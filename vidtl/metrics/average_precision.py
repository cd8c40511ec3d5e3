"""Average precision by torchmetrics, and rankings for official tie rules and resampled videos, which it lacks.

For equal scores, torchmetrics and scikit-learn count the precision at their common threshold for each positive among
them: of four, one of them positive, 1/4. The official Charades scorer keeps annotation order: 1 if the positive is the
first in the file, and 1/4 if it is the last.

Axes: N videos, K classes, P positives of all classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def average_precisions(scores_NK: Floats, targets_NK: NDArray[np.bool_]) -> Floats:
    """Compute the average precision of each class [K] with torchmetrics; NaN for classes without positives.

    torchmetrics applies a sigmoid to anything but probabilities, which makes ties of large logits. Scaled ranks are in
    [0, 1] and keep order and ties exactly.
    """
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    result = np.full(scores_NK.shape[1], np.nan)
    for k in np.flatnonzero(targets_NK.any(axis=0)):
        distinct, ranks = np.unique(scores_NK[:, k], return_inverse=True)
        scaled = torch.from_numpy(ranks.reshape(-1) / max(len(distinct) - 1, 1))
        with float64_default():
            result[k] = float(binary_average_precision(scaled, torch.from_numpy(targets_NK[:, k].astype(np.int64))))
    return result


@contextmanager
def float64_default() -> Iterator[None]:
    """Set the default dtype to float64, in which torchmetrics then divides its integer counts."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_average_precision(num_items: int, num_positives: int) -> float:
    """Return the mean of average precision over all rankings of N = `num_items` with P = `num_positives` >= 1.

    A positive is at each rank r equally often, and (P - 1) / (N - 1) of the r - 1 items before it are positive: the
    mean of (1 + (r - 1) (P - 1) / (N - 1)) / r over r, with the harmonic number H_N.
    """
    harmonic = float((1 / np.arange(1, num_items + 1)).sum())
    others = (num_positives - 1) / max(num_items - 1, 1)
    return (harmonic + others * (num_items - harmonic)) / num_items


@dataclass(eq=False)
class Rankings:
    """Rankings of all classes, prepared so that average precision of resampled videos costs one pass."""

    order: NDArray[np.int64]
    """[K, N] videos of each class, best first."""
    classes: NDArray[np.int64]
    videos: NDArray[np.int64]
    """[P] class and video of each positive, in order of class, then rank."""
    ends: NDArray[np.int64]
    last: NDArray[np.int64]
    """[P] last rank, from 0, that counts for the precision of each positive, and the last positive down to it."""
    _last_sums: tuple[NDArray[np.int64], tuple[Floats, Floats]] | None = None

    @classmethod
    def of(cls, scores_NK: Floats, targets_NK: NDArray[np.bool_], keep_order: bool) -> "Rankings":
        """Sort all classes. Equal scores keep their order with `keep_order`, or else share a threshold."""
        order = np.argsort(-scores_NK.T, axis=1, kind="stable")
        hits = np.take_along_axis(targets_NK.T, order, axis=1)
        classes, ranks = np.nonzero(hits)
        ends = ranks
        if not keep_order:
            sorted_KN = np.take_along_axis(scores_NK.T, order, axis=1)
            is_end = np.ones(sorted_KN.shape, bool)
            is_end[:, :-1] = sorted_KN[:, 1:] != sorted_KN[:, :-1]
            places = np.where(is_end, np.arange(len(scores_NK)), len(scores_NK))
            ends = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1][classes, ranks]
        place = classes * (len(scores_NK) + 1)
        last = np.searchsorted(place + ranks, place + ends, side="right") - 1
        return cls(order, classes, order[classes, ranks], ends, last)

    def precision_sums(self, times_N: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Sum the precision at each positive, and count positives: both [K], of videos drawn `times_N` times.

        Copies of a video (or row) are adjacent. The last result is kept for the other metrics of the same videos.
        """
        if self._last_sums and self._last_sums[0] is times_N:
            return self._last_sums[1]
        times_R = times_N.repeat(self.order.shape[1] // max(len(times_N), 1))
        drawn_down_to = times_R[self.order].cumsum(axis=1)[self.classes, self.ends]
        times = times_R[self.videos]
        found = times.cumsum()
        totals = np.bincount(self.classes, weights=times, minlength=len(self.order)).astype(np.float64)
        before = np.concatenate([[0], totals.cumsum()[:-1]])[self.classes]
        precision = (found[self.last] - before) / np.maximum(drawn_down_to, 1)
        sums = np.bincount(self.classes, weights=times * precision, minlength=len(self.order)).astype(np.float64)
        self._last_sums = times_N, (sums, totals)
        return sums, totals
