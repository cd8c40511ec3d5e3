"""Result of one evaluation, complete enough that every report is written from it alone."""

from dataclasses import dataclass
from typing import NamedTuple

from vidtl.metrics import Outcomes


class Unreadable(NamedTuple):
    """One annotated video without a score; it counts as wrong."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult:
    """Data, views, scores and metrics of one evaluation. The same on every process."""

    annotation: str
    root: str
    """Folder that `paths` are relative to."""
    protocol: str
    num_clips: int
    num_crops: int
    fusion: str
    max_videos: int
    """`evaluation.max_videos`: above 0, only so many of the first annotated videos were scored."""
    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    outcomes: Outcomes
    """In annotation order."""
    unreadable: list[Unreadable]
    metrics: dict[str, float]
    """Over all annotated videos; unreadable ones are wrong."""
    metrics_readable: dict[str, float]
    """Over the videos that could be read."""

    @property
    def num_scored(self) -> int:
        """Readable videos."""
        return int(self.outcomes.readable.sum())
