"""The table of metrics, from which everything lists them: add a function and a row. Axes: N videos, K classes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidtl.metrics.average_precision import Floats, Rankings, random_average_precision
from vidtl.metrics.charades import scores_of
from vidtl.metrics.outcomes import Bools, Outcomes

Statistic = Callable[[NDArray[np.int64]], float]
"""A metric of resampled videos, from how often each video was drawn, int64 [N]."""


@dataclass(frozen=True)
class Metric:
    """One metric; NaN where it is undefined."""

    name: str
    """Key in `metrics.json` and `metrics.jsonl`."""
    title: str
    remark: str
    labels: Literal["single", "multi", "both", "points"]
    """Kind of data it applies to; `points`: scores of time points."""
    function: Callable[[Outcomes], float]
    chance: Callable[[Bools, bool], float] | None = None
    """Mean over random scores, from targets [N, K] and whether the data is multi-label."""
    interval: Literal["wilson"] | Callable[[Outcomes], Statistic] | None = None
    """Wilson's for a share of videos, or a bootstrap of this statistic."""
    baseline: tuple[str, Callable[[Bools], float]] | None = None
    """Name and value of a constant answer, such as the largest class."""
    is_drawn: bool = True
    """Drawn in the curves of a run, and a candidate for the large numbers on the page."""
    higher_is_better: bool = True
    is_share: bool = True
    """In 0..1, and shown in percent."""
    min_classes: int = 1

    def applies_to(self, multi_label: bool, num_classes: int) -> bool:
        """Return True for data of that kind."""
        return self.labels in ("both", "multi" if multi_label else "single") and num_classes >= self.min_classes

    def brief(self, value: float) -> str:
        """Format name and value for a line that several metrics share, such as `top-1 66.7` (percent)."""
        name = self.name.replace("top", "top-")
        return f"{name} {100 * value:.1f}" if self.is_share else f"{name} {value:.3f}"


def evaluation_line(metrics: Mapping[str, float], decisive: str, is_best: bool) -> str:
    """Format the loss, the `decisive` metric and the usual ones; `is_best` marks the decisive one."""
    names = dict.fromkeys(("loss", decisive, "top1", "top5", "mAP"))
    found = [name for name in names if math.isfinite(metrics.get(name, math.nan))]
    return "  ".join(METRICS[name].brief(metrics[name]) + " (best)" * (is_best and name == decisive) for name in found)


def compute_metrics(outcomes: Outcomes) -> dict[str, float]:
    """Compute all metrics of the kind of data, in the order of the table."""
    fitting = metrics_of(outcomes.multi_label, outcomes.scores.shape[1]) + POINT_METRICS * (outcomes.points is not None)
    return {metric.name: metric.function(outcomes) for metric in fitting}


def chance_levels(targets_NK: NDArray[np.generic], multi_label: bool) -> dict[str, float]:
    """Compute the mean of each metric over random scores, and the baselines that need no scores."""
    targets = np.asarray(targets_NK).astype(bool)
    metrics = metrics_of(multi_label, targets.shape[1])
    levels = {metric.name: metric.chance(targets, multi_label) for metric in metrics if metric.chance}
    return levels | {metric.baseline[0]: metric.baseline[1](targets) for metric in metrics if metric.baseline}


def metrics_of(multi_label: bool, num_classes: int) -> list[Metric]:
    """List the metrics of single-label or multi-label data; the first one decides which checkpoint is best."""
    return [metric for metric in METRICS.values() if metric.applies_to(multi_label, num_classes)]


def cross_entropy(outcomes: Outcomes) -> float:
    """Compute the mean of -log p of readable videos, multi-label of their classes; p below 2.2e-16 counts as that."""
    targets, chances = outcomes.targets[outcomes.readable], outcomes.probabilities[outcomes.readable]
    of_label = np.where(targets, chances, 1 - chances) if outcomes.multi_label else chances[targets]
    return _mean(-np.log(np.maximum(of_label, np.finfo(np.float64).eps)))


def top_k(outcomes: Outcomes, k: int) -> float:
    """Compute the share of all videos whose label is among the `k` best classes (all of them where K < k)."""
    if len(outcomes) == 0:
        return math.nan
    return int(((outcomes.ranks < k) & outcomes.readable).sum()) / len(outcomes)


def mean_class_accuracy(outcomes: Outcomes) -> Statistic:
    """Make the statistic of the mean of the classes' accuracies."""
    labels, num_classes = outcomes.labels, outcomes.scores.shape[1]
    right = outcomes.answers == labels

    def statistic(times_N: NDArray[np.int64]) -> float:
        videos = np.bincount(labels, weights=times_N, minlength=num_classes)
        hits = np.bincount(labels, weights=times_N * right, minlength=num_classes)
        return _mean(hits[videos > 0] / videos[videos > 0])

    return statistic


def f1_macro(outcomes: Outcomes) -> Statistic:
    """Make the statistic of the classes' mean F1, 2 TP / (2 TP + FP + FN), by best class or probability above 0.5."""
    num_classes = outcomes.scores.shape[1]
    single = outcomes.answers[:, None] == np.arange(num_classes)
    named = outcomes.probabilities > 0.5 if outcomes.multi_label else single
    places = [np.nonzero(cells) for cells in (outcomes.targets, named, outcomes.targets & named)]

    def statistic(times_N: NDArray[np.int64]) -> float:
        true, positive, both = (np.bincount(classes, times_N[videos], num_classes) for videos, classes in places)
        present = true > 0
        return _mean(2 * both[present] / (true + positive)[present])

    return statistic


def random_f1(targets_NK: Bools, multi_label: bool) -> float:
    """Compute the mean of macro F1 for classes chosen with the probability q, 1 / K for one label or 1/2 for several.

    The number m of videos chosen is binomial. On average n / N of them are right, so that F1 is 2 m n / (N (n + m)).
    """
    num_videos, num_classes = targets_NK.shape
    counts = targets_NK.sum(axis=0)
    rate = 0.5 if multi_label else 1 / num_classes
    named = np.arange(num_videos + 1)
    factorials = np.concatenate([[0.0], np.log(named[1:]).cumsum()])
    logs = factorials[-1] - factorials - factorials[::-1] + named * math.log(rate)
    chances = np.exp(logs + (num_videos - named) * math.log1p(-rate)) if rate < 1 else (named == num_videos) * 1.0
    values = {n: float((chances * 2 * named * n / (num_videos * (n + named))).sum()) for n in set(counts.tolist()) if n}
    return _mean(np.array([values[n] for n in counts.tolist() if n]))


def resampled_average_precision(weighted: bool = False, ranking: str = "rankings") -> Callable[[Outcomes], Statistic]:
    """Make the statistic of a mean of average precision in the rankings of that name of the outcomes."""

    def make(outcomes: Outcomes) -> Statistic:
        rankings: Rankings = getattr(outcomes, ranking)

        def statistic(times_N: NDArray[np.int64]) -> float:
            sums, totals = rankings.precision_sums(times_N)
            if not totals.any():
                return math.nan
            return float(sums.sum() / totals.sum()) if weighted else _mean(sums[totals > 0] / totals[totals > 0])

        return statistic

    return make


def mean_over_classes(values_K: Floats, targets_NK: Bools, weighted: bool = False) -> float:
    """Average over the classes that have positives, plainly (torchmetrics' `macro`) or weighted by their positives."""
    positives = targets_NK.sum(axis=0)
    values, positives = values_K[positives > 0], positives[positives > 0]
    return float((values * positives).sum() / positives.sum()) if weighted and values.size else _mean(values)


def random_map(targets_NK: Bools, multi_label: bool = True, weighted: bool = False) -> float:
    """Compute the mean of mAP over random scores."""
    counts = targets_NK.sum(axis=0).tolist()
    chances = [random_average_precision(len(targets_NK), count) if count else math.nan for count in counts]
    return mean_over_classes(np.array(chances), targets_NK, weighted)


def official_random_map(targets_NK: Bools, multi_label: bool = True, weighted: bool = False) -> float:
    """Compute `random_map` of the labeled videos, which the official rules count; NaN if any class has none."""
    has_all = targets_NK.any(axis=0).all()
    return random_map(targets_NK[targets_NK.any(axis=1)], weighted=weighted) if has_all else math.nan


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan


def _of_all(make: Callable[[Outcomes], Statistic]) -> Callable[[Outcomes], float]:
    """Turn a statistic of resampled videos into the metric of all videos."""
    return lambda outcomes: make(outcomes)(np.ones(len(outcomes), np.int64))


_MEAN_OF_POINTS = resampled_average_precision(ranking="point_rankings")
_METRICS = (
    Metric(
        "top1", "Top-1 accuracy", "the best class is the true one", "single", partial(top_k, k=1),
        chance=lambda targets, multi_label: 1 / targets.shape[1], interval="wilson",
        baseline=("largest_class", lambda targets: float(targets.sum(axis=0).max() / max(len(targets), 1))),
    ),
    Metric(
        "top5", "Top-5 accuracy", "the true class is among the five best", "single", partial(top_k, k=5),
        chance=lambda targets, multi_label: 5 / targets.shape[1], interval="wilson", min_classes=6,
    ),
    Metric(
        "mean_class_accuracy", "Mean class accuracy", "mean over the classes that have videos", "single",
        _of_all(mean_class_accuracy),
        chance=lambda targets, multi_label: 1 / targets.shape[1], interval=mean_class_accuracy,
    ),
    Metric(
        "mAP", "mAP", "mean over the classes that have videos, equal scores share a threshold", "multi",
        lambda outcomes: mean_over_classes(outcomes.per_class, outcomes.targets),
        chance=random_map, interval=resampled_average_precision(), baseline=(
            "positive_rate", lambda targets: mean_over_classes(targets.sum(axis=0) / max(len(targets), 1), targets)
        ),
    ),
    Metric(
        "mAP_weighted", "mAP, weighted", "the same, each class weighted by its videos", "multi",
        lambda outcomes: mean_over_classes(outcomes.per_class, outcomes.targets, weighted=True),
        chance=partial(random_map, weighted=True), interval=resampled_average_precision(weighted=True), is_drawn=False,
    ),
    Metric(
        "mAP_charades", "mAP, Charades",
        "official: all classes, equal scores in annotation order, unlabeled videos left out", "multi",
        lambda outcomes: scores_of(outcomes.official_rankings).mean_ap,
        chance=official_random_map, interval=resampled_average_precision(ranking="official_rankings"),
    ),
    Metric(
        "mAP_charades_weighted", "mAP, Charades, weighted", "official: each class weighted by its videos", "multi",
        lambda outcomes: scores_of(outcomes.official_rankings).weighted_ap,
        chance=partial(official_random_map, weighted=True),
        interval=resampled_average_precision(weighted=True, ranking="official_rankings"), is_drawn=False,
    ),
    Metric(
        "f1_macro", "F1, macro", "mean over the classes that have videos; multi-label: probabilities above 0.5", "both",
        _of_all(f1_macro), chance=random_f1, interval=f1_macro,
    ),
    Metric(
        "ece", "Calibration error",
        "expected difference of probability and accuracy of readable videos; lower is better", "both",
        lambda outcomes: outcomes.calibration.ece, is_drawn=False, higher_is_better=False,
    ),
    Metric(
        "loss", "Loss", "cross-entropy of readable videos; multi-label: mean over classes; lower is better", "both",
        cross_entropy, is_drawn=False, higher_is_better=False, is_share=False,
    ),
    Metric(
        "mAP_localize", "mAP, localization", "official: points of time, all classes, equal scores in order", "points",
        lambda outcomes: scores_of(outcomes.point_rankings).mean_ap, interval=_MEAN_OF_POINTS, is_drawn=False,
    ),
    Metric(
        "mAP_localize_weighted", "mAP, localization, weighted", "official: each class weighted by its points", "points",
        lambda outcomes: scores_of(outcomes.point_rankings).weighted_ap, is_drawn=False,
        interval=resampled_average_precision(weighted=True, ranking="point_rankings"),
    ),
    Metric(
        "mAP_localize_present", "mAP, localization, present", "mean over the classes that have points", "points",
        _of_all(_MEAN_OF_POINTS), interval=_MEAN_OF_POINTS,
    ),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _METRICS}
POINT_METRICS = [metric for metric in _METRICS if metric.labels == "points"]
