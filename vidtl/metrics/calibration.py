"""Expected calibration error and its reliability diagram.

Guo et al., "On calibration of modern neural networks" (2017), section 2: predictions are put into 15 bins of equal
width by their probability; the error is the mean over bins, weighted by their counts, of |accuracy - mean probability|.
torchmetrics gives a probability of exactly 1 a separate bin; here it stays in the last one, slightly below 1.
Axes: N videos, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidtl.metrics.average_precision import float64_default
from vidtl.metrics.outcomes import Outcomes

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Calibration of readable videos; a video that could not be read has no probability."""

    ece: float
    """Expected calibration error in 0..1; NaN without readable videos."""
    edges: NDArray[np.float64]
    """[NUM_BINS + 1]; bin i holds edges[i] <= probability < edges[i + 1], and the last one also 1."""
    counts: NDArray[np.int64]
    """[NUM_BINS] predictions."""
    confidences: NDArray[np.float64]
    """[NUM_BINS] mean probability; NaN in empty bins."""
    accuracies: NDArray[np.float64]
    """[NUM_BINS] share of predictions that are right; NaN in empty bins."""


def calibration(outcomes: Outcomes) -> Calibration:
    """Calibrate the best class of each video, or multi-label data's N K separate decisions."""
    import torch  # here, because reading the table of metrics should not load it

    chances = np.minimum(outcomes.probabilities[outcomes.readable], np.nextafter(1, 0))
    targets = outcomes.targets[outcomes.readable]
    if not outcomes.multi_label:
        best = chances.argmax(axis=1, keepdims=True) if len(chances) else np.zeros((0, 1), np.int64)
        chances, targets = (np.take_along_axis(values, best, axis=1) for values in (chances, targets))
    confidences, right = chances.ravel(), targets.ravel()
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64).numpy()  # torchmetrics' own, to the bit
    bins = np.searchsorted(edges, confidences, side="right") - 1
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = (np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (confidences, right))
    means = [np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for total in sums]
    return Calibration(
        ece=_expected_calibration_error(confidences, right),
        edges=edges,
        counts=counts.astype(np.int64),
        confidences=means[0],
        accuracies=means[1],
    )


def _expected_calibration_error(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    if confidences.size == 0:
        return float("nan")
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    # The binary form serves for best classes too: torchmetrics' multi-class form computes in float32.
    flat = torch.from_numpy(confidences), torch.from_numpy(right.astype(np.int64))
    with float64_default():
        return float(binary_calibration_error(*flat, n_bins=NUM_BINS, norm="l1"))
