"""Scores of videos beside their labels: the input of every metric.

Axes: N videos, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidtl.metrics.average_precision import Floats, Rankings, average_precisions
from vidtl.metrics.charades import official_rankings

Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Scores and labels of N videos. An unreadable video has scores of -inf: it is wrong and ranks last.

    Raises:
        ValueError: shapes that do not match, NaN scores, or a single-label row without exactly one label.
    """

    scores: Floats
    """[N, K] in annotation order; larger is more likely. Equal scores go to the lower class number."""
    targets: Bools
    """[N, K]."""
    probabilities: Floats
    """[N, K] in 0..1; rows of NaN are unreadable videos."""
    multi_label: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", np.asarray(self.targets).astype(bool))
        shape = self.scores.shape
        if len(shape) != 2 or self.targets.shape != shape or self.probabilities.shape != shape:
            raise ValueError(f"scores {shape}, targets {self.targets.shape} and probabilities "
                             f"{self.probabilities.shape} must all be [videos, classes]")  # fmt: skip
        if np.isnan(self.scores).any():
            raise ValueError(f"scores of row {int(np.isnan(self.scores).any(axis=1).argmax())} hold NaN")
        wrong = np.flatnonzero(self.targets.sum(axis=1) != 1)
        if wrong.size and not self.multi_label:
            raise ValueError(f"row {wrong[0]} has {int(self.targets[wrong[0]].sum())} labels; single-label rows have 1")

    def __getitem__(self, rows: Bools) -> "Outcomes":
        """Select videos."""
        parts = (self.scores[rows], self.targets[rows], self.probabilities[rows])
        return Outcomes(scores=parts[0], targets=parts[1], probabilities=parts[2], multi_label=self.multi_label)

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def readable(self) -> Bools:
        """[N]."""
        return ~unreadable_rows(self.scores)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """[N] class of each video of single-label data."""
        labels: NDArray[np.int64] = self.targets.argmax(axis=1)
        return labels

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """[N] class with the best score; K for unreadable videos."""
        answers: NDArray[np.int64] = np.where(self.readable, self.scores.argmax(axis=1), self.scores.shape[1])
        return answers

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """[K, K + 1] counts of (true class, answer); the last column counts unreadable videos."""
        num_classes = self.scores.shape[1]
        places = self.labels * (num_classes + 1) + self.answers
        counts = np.bincount(places, minlength=num_classes * (num_classes + 1))
        return counts.reshape(num_classes, num_classes + 1)

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


def unreadable_rows(scores_NK: Floats) -> Bools:
    """Return [N], true for videos that could not be read, which have scores of -inf."""
    rows: Bools = np.all(np.isneginf(scores_NK), axis=1)
    return rows


def classes_without_positives(targets_NK: NDArray[np.generic], class_names: Sequence[str]) -> list[str]:
    """Name the classes that no video has, in class order."""
    present: Bools = np.any(np.asarray(targets_NK).astype(bool), axis=0)
    return [name for name, found in zip(class_names, present, strict=True) if not found]
