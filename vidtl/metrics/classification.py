"""Exact metrics over all annotated videos, counted by torchmetrics and divided in float64.

Axes: N videos, K classes. A row of scores that is -inf throughout stands for a video that could not be read: it is
wrong for every top k, and ranked last for every class of multi-label data.

Where a metric needs ranks only, torchmetrics sees ranks instead of scores, so that large logits do not become ties.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_stat_scores

from vidtl.metrics.average_precision import (
    grouped_average_precision,
    per_class_average_precision,
    sklearn_average_precisions,
)

__all__ = [
    "chance_levels",
    "classes_without_positives",
    "compute_metrics",
    "confusion_matrix",
    "per_class_accuracy",
    "per_class_average_precision",
    "unreadable_rows",
]

Scores = NDArray[np.float64]
Targets = NDArray[np.generic]


def compute_metrics(
    scores_NK: Scores, targets_NK: Targets, multi_label: bool, class_names: Sequence[str]
) -> dict[str, float]:
    """All metrics of one evaluation.

    Args:
        scores_NK: float64 [N, K]; larger is more likely; rows of -inf are unreadable videos.
        targets_NK: [N, K] of 0 and 1; exactly one 1 per row unless `multi_label`.
        multi_label: chooses the metrics.
        class_names: K names.

    Returns:
        Single label: `top1`, `top5` (top K where K < 5), `mean_class_accuracy` (mean over the classes that have
        videos). Multi-label: `mAP` (mean over the classes that have positives),
        `mAP_weighted` (the same weighted by positives), `mAP_micro` (all decisions in one ranking), `mAP_sklearn` (as
        scikit-learn's macro average, in which a class without positives counts as 0).
        Both: `classes_without_positives`, how many classes the means leave out (`classes_without_positives()` names
        them). Shares are in 0..1; NaN where nothing can be averaged.

    Raises:
        ValueError: shapes that do not match, NaN scores, or single-label rows without exactly one label.
    """
    scores, targets = _checked(scores_NK, targets_NK, class_names)
    left_out = {"classes_without_positives": float((~targets.any(axis=0)).sum())}
    if multi_label:
        return _multi_label_metrics(scores, targets) | left_out
    per_class = per_class_accuracy(scores, targets)
    return {
        "top1": _top_k_accuracy(scores, targets, 1),
        "top5": _top_k_accuracy(scores, targets, min(5, targets.shape[1])),
        "mean_class_accuracy": _mean(per_class[~np.isnan(per_class)]),
    } | left_out


def classes_without_positives(targets_NK: Targets, class_names: Sequence[str]) -> list[str]:
    """Names of the classes that no video has, in class order."""
    positives: NDArray[np.bool_] = np.any(_multi_hot(targets_NK), axis=0)
    return [name for name, present in zip(class_names, positives, strict=True) if not present]


def chance_levels(targets_NK: Targets, multi_label: bool) -> dict[str, float]:
    """What random scores reach on average, under the metrics' names, and what needs no scores at all.

    Single label, also: `largest_class`, the top 1 of always naming the most frequent class. Multi-label, also:
    `positive_rate`, the mean over the classes that have positives of their share of videos, which is the mAP of scores
    that are all equal. `mAP_charades` counts labelled videos only, as the official rules do.
    """
    targets = _multi_hot(targets_NK)
    num_videos, num_classes = targets.shape
    positives = targets.sum(axis=0)
    if not multi_label:
        return {
            "top1": 1 / num_classes,
            "top5": min(5, num_classes) / num_classes,
            "mean_class_accuracy": 1 / num_classes,
            "largest_class": float(positives.max() / max(num_videos, 1)),
        }
    present = positives[positives > 0]
    expected = np.array([_random_average_precision(num_videos, int(n)) for n in present])
    num_labelled = int(np.any(targets, axis=1).sum())
    official = np.array([_random_average_precision(num_labelled, int(n)) for n in present])
    total = int(positives.sum())
    return {
        "mAP": _mean(expected),
        "mAP_weighted": float((expected * present).sum() / total) if total else float("nan"),
        "mAP_micro": _random_average_precision(targets.size, total) if total else float("nan"),
        "mAP_sklearn": float(expected.sum() / num_classes),
        "mAP_charades": _mean(official) if len(present) == num_classes else float("nan"),
        "mAP_charades_weighted": float((official * present).sum() / total) if total else float("nan"),
        "positive_rate": _mean(present / max(num_videos, 1)),
    }


def _random_average_precision(num_items: int, num_positives: int) -> float:
    """Exact mean of average precision over all rankings of `num_items` with `num_positives` (at least one) positives.

    A positive is at each rank r equally often, and (P - 1) / (N - 1) of the r - 1 items before it are positive; the
    mean of (1 + (r - 1) (P - 1) / (N - 1)) / r over r is (H_N + (P - 1) / (N - 1) (N - H_N)) / N with the harmonic
    number H_N. It is above the positive rate P / N, by far for few items.
    """
    harmonic = float((1 / np.arange(1, num_items + 1)).sum())
    others = (num_positives - 1) / max(num_items - 1, 1)
    return (harmonic + others * (num_items - harmonic)) / num_items


def confusion_matrix(scores_NK: Scores, targets_NK: Targets) -> NDArray[np.int64]:
    """Counts [K, K + 1] of (true class, predicted class); the last column counts unreadable videos.

    Equal scores go to the lower class number, as in `numpy.argmax`.
    """
    labels = _single_labels(targets_NK)
    num_classes = np.shape(targets_NK)[1]
    predicted = np.where(unreadable_rows(scores_NK), num_classes, np.argmax(scores_NK, axis=1))
    counts = multiclass_confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(labels), num_classes + 1)
    matrix: NDArray[np.int64] = counts.numpy()[:num_classes].astype(np.int64)
    return matrix


def per_class_accuracy(scores_NK: Scores, targets_NK: Targets) -> NDArray[np.float64]:
    """Share [K] of each class's videos whose top prediction is right; NaN for classes without videos."""
    matrix = confusion_matrix(scores_NK, targets_NK)
    videos = matrix.sum(axis=1)
    return np.where(videos > 0, np.diagonal(matrix) / np.maximum(videos, 1), np.nan)


def unreadable_rows(scores_NK: Scores) -> NDArray[np.bool_]:
    """Which rows [N] stand for videos that could not be read."""
    rows: NDArray[np.bool_] = np.all(np.isneginf(scores_NK), axis=1)
    return rows


def _checked(scores_NK: Scores, targets_NK: Targets, class_names: Sequence[str]) -> tuple[Scores, NDArray[np.bool_]]:
    scores = np.asarray(scores_NK, dtype=np.float64)
    targets = _multi_hot(targets_NK)
    if scores.ndim != 2 or scores.shape != targets.shape or scores.shape[1] != len(class_names):
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must both be [videos, {len(class_names)} classes]"
        )
    if np.isnan(scores).any():
        raise ValueError(f"scores of row {int(np.isnan(scores).any(axis=1).argmax())} hold NaN")
    return scores, targets


def _single_labels(targets_NK: Targets) -> NDArray[np.int64]:
    targets = _multi_hot(targets_NK)
    wrong = np.flatnonzero(targets.sum(axis=1) != 1)
    if wrong.size:
        raise ValueError(f"row {wrong[0]} has {int(targets[wrong[0]].sum())} labels; single-label rows have exactly 1")
    labels: NDArray[np.int64] = np.argmax(targets, axis=1)
    return labels


def _multi_hot(targets_NK: Targets) -> NDArray[np.bool_]:
    targets: NDArray[np.bool_] = np.asarray(targets_NK).astype(bool)
    return targets


def _top_k_accuracy(scores_NK: Scores, targets_NK: NDArray[np.bool_], k: int) -> float:
    """Share of all rows whose label is among the `k` best of a readable row."""
    labels = _single_labels(targets_NK)
    readable = ~unreadable_rows(scores_NK)
    if not readable.any():
        return 0.0 if len(labels) else float("nan")
    order = np.argsort(-scores_NK[readable], axis=1, kind="stable")  # ties go to the lower class number
    num_classes = order.shape[1]
    ranks = np.zeros(
        (len(order), num_classes + 1)
    )  # one more column, always last, since torchmetrics wants two classes
    np.put_along_axis(ranks, order, 1.0 - np.arange(num_classes) / num_classes, axis=1)
    counts = multiclass_stat_scores(
        torch.from_numpy(ranks), torch.from_numpy(labels[readable]), num_classes + 1, top_k=k, average="micro"
    )
    return int(counts[0]) / len(labels)


def _multi_label_metrics(scores_NK: Scores, targets_NK: NDArray[np.bool_]) -> dict[str, float]:
    average_precisions = per_class_average_precision(scores_NK, targets_NK)
    positives = targets_NK.sum(axis=0)
    present = positives > 0
    weighted = average_precisions[present] * positives[present]
    return {
        "mAP": _mean(average_precisions[present]),
        "mAP_weighted": float(weighted.sum() / positives.sum()) if present.any() else float("nan"),
        "mAP_micro": grouped_average_precision(scores_NK.ravel(), targets_NK.ravel()),
        "mAP_sklearn": _mean(sklearn_average_precisions(scores_NK, targets_NK)) if len(scores_NK) else float("nan"),
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
