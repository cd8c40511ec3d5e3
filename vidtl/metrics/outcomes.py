"""Scores of videos beside their labels: the input of every metric. Axes: N videos, K classes."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidtl.metrics.average_precision import Floats, Rankings, average_precisions, float64_default
from vidtl.metrics.charades import official_rankings

Bools = NDArray[np.bool_]

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Calibration of the readable videos in bins of equal width.

    Source: Guo et al., "On calibration of modern neural networks" (2017), section 2. torchmetrics gives a probability
    of exactly 1 a separate bin; here it stays in the last one, slightly below 1.
    """

    ece: float
    """Expected calibration error in 0..1, the mean over bins, weighted by their counts, of |accuracy - mean
    probability|; NaN without readable videos."""
    edges: Floats
    """[NUM_BINS + 1]; bin i holds edges[i] <= probability < edges[i + 1], and the last one also 1."""
    counts: NDArray[np.int64]
    confidences: Floats
    accuracies: Floats
    """[NUM_BINS] predictions, their mean probability, and the share that is right; NaN in empty bins."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Scores and labels of N videos. An unreadable video has scores of -inf: it is wrong and ranks last.

    ValueError: shapes that do not match, NaN scores, or a single-label row without exactly one label.
    """

    scores: Floats
    """[N, K] in annotation order; larger is more likely. Equal scores go to the lower class number."""
    targets: Bools
    probabilities: Floats
    """[N, K] both, in 0..1; rows of NaN are unreadable videos."""
    multi_label: bool
    points: tuple[Floats, Bools] | None = None
    """Scores and labels of P time points, both [N, P, K], for metrics of localization."""

    def __post_init__(self) -> None:
        shapes = self.scores.shape, self.targets.shape, self.probabilities.shape
        if len(shapes[0]) != 2 or len({*shapes}) > 1:
            raise ValueError(f"shapes of scores, targets and probabilities {shapes} must all be [videos, classes]")
        if np.isnan(self.scores).any():
            raise ValueError(f"scores of row {int(np.isnan(self.scores).any(axis=1).argmax())} hold NaN")
        wrong = np.flatnonzero(self.targets.sum(axis=1) != 1)
        if wrong.size and not self.multi_label:
            raise ValueError(f"row {wrong[0]} has {int(self.targets[wrong[0]].sum())} labels; single-label rows have 1")

    def __getitem__(self, rows: NDArray[np.generic]) -> "Outcomes":
        """Select videos."""
        chances, points = self.probabilities[rows], self.points and (self.points[0][rows], self.points[1][rows])
        return replace(self, scores=self.scores[rows], targets=self.targets[rows], probabilities=chances, points=points)

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def readable(self) -> Bools:
        """[N]."""
        return np.asarray((self.scores > -np.inf).any(axis=1))

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """[N] class of each video of single-label data."""
        return self.targets.argmax(axis=1)  # type: ignore[no-any-return]

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """[N] class with the best score; K for unreadable videos."""
        return np.asarray(np.where(self.readable, self.scores.argmax(axis=1), self.scores.shape[1]))

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """[N] number of classes ahead of the label of single-label data; of equal scores, the first class leads."""
        own = self.scores[np.arange(len(self)), self.labels][:, None]
        before = np.arange(self.scores.shape[1]) < self.labels[:, None]
        return ((self.scores > own) | ((self.scores == own) & before)).sum(axis=1)  # type: ignore[no-any-return]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """[K, K + 1] counts of (true class, answer); the last column counts unreadable videos."""
        num_classes = self.scores.shape[1]
        places = self.labels * (num_classes + 1) + self.answers
        return np.bincount(places, minlength=num_classes * (num_classes + 1)).reshape(num_classes, num_classes + 1)

    @cached_property
    def per_class(self) -> Floats:
        """[K] average precision (multi-label) or accuracy of each class; NaN for classes without videos."""
        if self.multi_label:
            return average_precisions(self.scores, self.targets)
        videos = self.confusion.sum(axis=1)
        return np.where(videos > 0, np.diagonal(self.confusion) / np.maximum(videos, 1), np.nan)

    @cached_property
    def rankings(self) -> Rankings:
        """Rankings of all videos, equal scores together."""
        return Rankings.of(self.scores, self.targets, keep_order=False)

    @cached_property
    def official_rankings(self) -> Rankings:
        """Rankings by the rules of the Charades scorer."""
        return official_rankings(self.scores, self.targets)

    @cached_property
    def point_rankings(self) -> Rankings:
        """Rankings of the time points by the rules of the Charades localization scorer."""
        assert self.points is not None
        return Rankings.of(np.concatenate(self.points[0]), np.concatenate(self.points[1]), keep_order=True)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of the best class of each video, or of the N K separate decisions of multi-label data."""
        import torch  # here, because reading the table of metrics should not load it
        from torchmetrics.functional.classification import binary_calibration_error

        chances = np.minimum(self.probabilities[self.readable], np.nextafter(1, 0))
        targets = self.targets[self.readable]
        if not self.multi_label and len(chances):
            best = chances.argmax(axis=1, keepdims=True)
            chances, targets = (np.take_along_axis(values, best, axis=1) for values in (chances, targets))
        confidences, right = chances.ravel(), targets.ravel()
        edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64).numpy()  # torchmetrics' edges, to the bit
        bins = np.searchsorted(edges, confidences, side="right") - 1
        counts = np.bincount(bins, minlength=NUM_BINS)
        sums = (np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (confidences, right))
        means = [np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for total in sums]
        ece = float("nan")
        if len(confidences):
            with float64_default():  # the binary form for best classes too: the multi-class form computes in float32
                given = torch.from_numpy(confidences), torch.from_numpy(right.astype(np.int64))
                ece = float(binary_calibration_error(*given, n_bins=NUM_BINS, norm="l1"))
        return Calibration(ece=ece, edges=edges, counts=counts, confidences=means[0], accuracies=means[1])
