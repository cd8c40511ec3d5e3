"""95 % confidence intervals of metrics, for videos as a random sample. Axes: N videos.

Shares of videos have Wilson's interval ("Probable inference, the law of succession, and statistical inference", 1927).
Other metrics have the percentile interval of a bootstrap over videos (Efron, 1979) with a fixed seed, shifted so that
the resamples' mean is the metric: copies of a positive rank together, which alone raises average precision.
Neither covers training: another seed of the same recipe may differ by more.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.metrics.outcomes import Outcomes
from vidtl.metrics.table import METRICS, Statistic
from vidtl.runtime.seeding import generator

LEVEL, _NORMAL_QUANTILE = 0.95, 1.959963984540054  # the quantile of (1 + LEVEL) / 2
SEED, MIN_RESAMPLES, MAX_RESAMPLES = 20, 100, 1000
MAX_WORK = 400_000_000
"""Bound on the scores read by all resamples together, some seconds of work; large sets get fewer resamples."""


class Interval(NamedTuple):
    """Limits of a metric, NaN where there are none, and `wilson` or `centered bootstrap` with the resamples."""

    low: float
    high: float
    method: str


def confidence_intervals(outcomes: Outcomes, metrics: Mapping[str, float]) -> dict[str, Interval]:
    """Compute the intervals of `metrics`, the values of `compute_metrics(outcomes)`; undefined ones have none."""
    rows = [METRICS[name] for name, value in metrics.items() if METRICS[name].interval and not math.isnan(value)]
    statistics = {row.name: row.interval(outcomes) for row in rows if callable(row.interval)}
    work = 2 * outcomes.scores.size if outcomes.multi_label else len(outcomes)
    work += outcomes.points[0].size if outcomes.points else 0
    drawn, count = bootstrap(statistics, len(outcomes), work) if statistics else {}, len(outcomes)
    return {row.name: drawn.get(row.name) or wilson(round(metrics[row.name] * count), count) for row in rows}


def wilson(num_right: int, num_videos: int) -> Interval:
    """Compute Wilson's interval of the share `num_right / num_videos`; `num_videos` must be 1 or more."""
    share, z_squared = num_right / num_videos, _NORMAL_QUANTILE**2
    scale = 1 + z_squared / num_videos
    center = (share + z_squared / (2 * num_videos)) / scale
    spread = share * (1 - share) / num_videos + z_squared / (4 * num_videos**2)
    half = _NORMAL_QUANTILE * math.sqrt(spread) / scale
    return Interval(max(0.0, min(share, center - half)), min(1.0, max(share, center + half)), "wilson")


def bootstrap(statistics: Mapping[str, Statistic], num_videos: int, work: int) -> dict[str, Interval]:
    """Compute centered percentile intervals, NaN where all resamples agree, whose number the `work` of one decides."""
    num_resamples = int(np.clip(MAX_WORK // max(work, 1), MIN_RESAMPLES, MAX_RESAMPLES))
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    for resample in range(num_resamples):
        videos = generator(SEED, resample).integers(0, num_videos, num_videos)
        times_N = np.bincount(videos, minlength=num_videos)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(times_N))
    method = f"centered bootstrap, {num_resamples} resamples"
    once = np.ones(num_videos, np.int64)
    return {name: _limits(statistic(once), np.array(drawn[name]), method) for name, statistic in statistics.items()}


def _limits(value: float, drawn: NDArray[np.float64], method: str) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0 or np.ptp(drawn) == 0:
        return Interval(math.nan, math.nan, method)
    shifted = np.clip(drawn + (value - drawn.mean()), 0, 1)
    low, high = np.quantile(shifted, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), method)
