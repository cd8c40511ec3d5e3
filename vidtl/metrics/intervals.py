"""How far metrics could be off because the videos are a sample: 95 % confidence intervals.

Shares of videos (top 1, top 5) have Wilson's interval ("Probable inference, the law of succession, and statistical
inference", 1927). Means over classes have the percentile interval of a bootstrap over videos (Efron, 1979), whose
resamples are derived from a fixed seed, so that the same scores always give the same interval. It is shifted so that
the resamples' mean is the metric: copies of a positive rank together, which alone raises average precision.
Neither knows of training: another seed of the same recipe may differ by more.
Axes: N videos, K classes, P positives of all classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.classification import unreadable_rows
from vidtl.runtime.seeding import generator

LEVEL = 0.95
_NORMAL_QUANTILE = 1.959963984540054
"""Of (1 + LEVEL) / 2."""

SEED = 20
MAX_RESAMPLES, MIN_RESAMPLES = 1000, 100
MAX_WORK = 400_000_000
"""Scores looked at over all resamples, which bounds the time to some seconds; large sets need fewer resamples."""


class Interval(NamedTuple):
    """Limits of the metric of the same name; NaN where there is none."""

    low: float
    high: float
    method: str
    """`wilson`, or `centred bootstrap` with the number of resamples."""


def confidence_intervals(result: EvaluationResult) -> dict[str, Interval]:
    """Intervals of `result.metrics`, under their names: over all annotated videos, unreadable ones wrong."""
    if result.num_annotated == 0:
        return {}
    if result.multi_label:
        return _multi_label_intervals(result)
    shares = {name: wilson(round(result.metrics[name] * result.num_annotated), result.num_annotated)
              for name in ("top1", "top5")}  # fmt: skip
    return shares | {"mean_class_accuracy": _mean_class_accuracy(result)}


def wilson(num_right: int, num_videos: int) -> Interval:
    """Wilson's interval of the share `num_right / num_videos`; `num_videos` must be 1 or more."""
    share, z_squared = num_right / num_videos, _NORMAL_QUANTILE**2
    scale = 1 + z_squared / num_videos
    centre = (share + z_squared / (2 * num_videos)) / scale
    spread = share * (1 - share) / num_videos + z_squared / (4 * num_videos**2)
    half = _NORMAL_QUANTILE * math.sqrt(spread) / scale
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), "wilson")


def bootstrap(
    statistics: Callable[[NDArray[np.int64]], dict[str, float]], num_videos: int, work: int
) -> dict[str, Interval]:
    """Centred percentile intervals of what `statistics` gives for resampled videos.

    There are no limits (NaN) where all resamples agree, as they do where everything is right: that is no certainty.

    Args:
        statistics: from how often each video was drawn, int64 [N], to named numbers.
        work: scores that `statistics` looks at, which decides the number of resamples.
    """
    num_resamples = int(np.clip(MAX_WORK // max(work, 1), MIN_RESAMPLES, MAX_RESAMPLES))
    drawn = []
    for resample in range(num_resamples):
        videos = generator(SEED, resample).integers(0, num_videos, num_videos)
        drawn.append(statistics(np.bincount(videos, minlength=num_videos)))
    whole = statistics(np.ones(num_videos, np.int64))
    method = f"centred bootstrap, {num_resamples} resamples"
    return {name: _limits(value, np.array([each[name] for each in drawn]), method) for name, value in whole.items()}


def _limits(value: float, drawn: NDArray[np.float64], method: str) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0 or np.ptp(drawn) == 0:
        return Interval(math.nan, math.nan, method)
    shifted = np.clip(drawn + (value - drawn.mean()), 0, 1)
    low, high = np.quantile(shifted, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), method)


def _mean_class_accuracy(result: EvaluationResult) -> Interval:
    labels = result.targets.argmax(axis=1)
    right = (result.scores.argmax(axis=1) == labels) & ~unreadable_rows(result.scores)
    num_classes = len(result.class_names)

    def statistics(times_N: NDArray[np.int64]) -> dict[str, float]:
        videos = np.bincount(labels, weights=times_N, minlength=num_classes)
        hits = np.bincount(labels, weights=times_N * right, minlength=num_classes)
        return {"mean_class_accuracy": float((hits[videos > 0] / videos[videos > 0]).mean())}

    return bootstrap(statistics, len(labels), len(labels))["mean_class_accuracy"]


def _multi_label_intervals(result: EvaluationResult) -> dict[str, Interval]:
    labelled: NDArray[np.bool_] = np.any(result.targets > 0, axis=1)
    if not labelled.any():
        return {}
    grouped = _Rankings.of(result.scores, result.targets, keep_order=False)
    official = _Rankings.of(result.scores[labelled], result.targets[labelled], keep_order=True)

    def statistics(times_N: NDArray[np.int64]) -> dict[str, float]:
        means = grouped.means(times_N)
        drawn = {"mAP": means[0], "mAP_weighted": means[1]}
        if math.isnan(result.metrics["mAP_charades"]):
            return drawn
        means = official.means(times_N[labelled])
        return drawn | {"mAP_charades": means[0], "mAP_charades_weighted": means[1]}

    return bootstrap(statistics, len(labelled), 2 * result.scores.size)


@dataclass(frozen=True, eq=False)
class _Rankings:
    """The rankings of all classes, prepared so that a resample costs one pass over the scores."""

    order: NDArray[np.int64]
    """[K, N] videos of each class, best first."""
    classes: NDArray[np.int64]
    """[P] class of each positive; positives are in order of class, then rank."""
    videos: NDArray[np.int64]
    """[P]."""
    ends: NDArray[np.int64]
    """[P] rank, from 0, down to which videos count for the precision of each positive."""
    last: NDArray[np.int64]
    """[P] the last positive down to that rank."""

    @classmethod
    def of(cls, scores_NK: NDArray[np.float64], targets_NK: NDArray[np.float32], keep_order: bool) -> "_Rankings":
        """With `keep_order` equal scores keep their order; otherwise they are judged together."""
        order = np.argsort(-scores_NK.T, axis=1, kind="stable")
        hits = np.take_along_axis(targets_NK.T.astype(bool), order, axis=1)
        classes, ranks = np.nonzero(hits)
        ends = ranks
        if not keep_order:
            sorted_KN = np.take_along_axis(scores_NK.T, order, axis=1)
            is_end = np.ones(sorted_KN.shape, bool)
            is_end[:, :-1] = sorted_KN[:, 1:] != sorted_KN[:, :-1]
            num_videos = len(scores_NK)
            places = np.where(is_end, np.arange(num_videos), num_videos)
            ends = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1][classes, ranks]
        place = classes * (len(scores_NK) + 1)
        last = np.searchsorted(place + ranks, place + ends, side="right") - 1
        return cls(order, classes, order[classes, ranks], ends, last)

    def means(self, times_N: NDArray[np.int64]) -> tuple[float, float]:
        """mAP over the classes that have positives, and mAP weighted by positives, of videos drawn `times_N` times.

        Copies of a video stand together, as equal scores of `keep_order=False` do.
        """
        drawn_down_to = times_N[self.order].cumsum(axis=1)[self.classes, self.ends]
        times = times_N[self.videos]
        found = times.cumsum()
        totals = np.bincount(self.classes, weights=times, minlength=len(self.order))
        before = np.concatenate([[0], totals.cumsum()[:-1]])[self.classes]
        precision = (found[self.last] - before) / np.maximum(drawn_down_to, 1)
        sums = np.bincount(self.classes, weights=times * precision, minlength=len(self.order))
        present = totals > 0
        if not present.any():
            return math.nan, math.nan
        return float((sums[present] / totals[present]).mean()), float(sums.sum() / totals.sum())
