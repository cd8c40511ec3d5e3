"""What one evaluation found, complete enough that every report is written from it alone."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.evaluation.fusion import probabilities


class Unreadable(NamedTuple):
    """One annotated video without a score; it counts as wrong."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult:
    """One evaluation: what was asked, what could be read, the scores and the metrics. The same on every process."""

    annotation: str
    root: str
    """Folder that `paths` are relative to."""
    protocol: str
    num_clips: int
    num_crops: int
    fusion: str
    multi_label: bool
    max_videos: int
    """`evaluation.max_videos`: above 0, only so many of the first annotated videos were asked for."""
    num_annotated: int
    num_scored: int
    unreadable: list[Unreadable]
    metrics: dict[str, float]
    """Over all annotated videos; unreadable ones are wrong."""
    metrics_readable: dict[str, float]
    """Over the videos that could be read."""
    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    scores: NDArray[np.float64]
    """[N, K] in annotation order; rows of -inf are unreadable videos."""
    targets: NDArray[np.float32]
    """[N, K] of 0 and 1."""

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """[N, K]; rows of NaN are unreadable videos."""
        return probabilities(self.scores, self.fusion, self.multi_label)
