"""The numbers of an evaluation as rows of the page's tables and points of its drawings.

Axes: N videos, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidtl.evaluation.html.names import visible
from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.classification import chance_levels, confusion_matrix
from vidtl.metrics.intervals import wilson

NUM_CONFUSIONS = 12
"""Most frequent mistakes listed beside the matrix."""

METRICS = {
    "top1": ("Top-1 accuracy", "The best class is the true one."),
    "top5": ("Top-5 accuracy", "The true class is among the five best."),
    "mean_class_accuracy": ("Mean class accuracy", "Mean of the classes' accuracies: every class weighs the same."),
    "mAP": ("mAP", "Mean of the classes' average precision, over the classes that have videos."),
    "mAP_weighted": ("mAP, weighted", "The same, every class weighed by its videos."),
    "mAP_micro": ("mAP, micro", "Average precision of all decisions in one ranking."),
    "mAP_sklearn": ("mAP, scikit-learn", "Mean over all classes; a class without videos counts as 0."),
    "mAP_charades": ("mAP, Charades", "By the rules of the official scorer, which needs videos of every class."),
    "mAP_charades_weighted": ("mAP, Charades, weighted", "The official scorer's average precisions by videos."),
    "ece": ("Calibration error", "Expected distance of confidence and share of right ones; small is good."),
}
"""Names and meanings; a metric that is not here is shown under its key."""

HEADLINE = ("top1", "top5", "mean_class_accuracy", "mAP", "mAP_weighted", "mAP_charades")
"""Metrics shown large, where they exist and chance does not reach 100 %."""

NUM_HEADLINE = 3

Limits = tuple[float, float]


@dataclass(frozen=True)
class MetricRow:
    """One metric."""

    label: str
    help: str
    value: float | None
    readable: float | None
    interval: Limits | None
    chance: float | None
    headline: bool


@dataclass(frozen=True)
class ClassRow:
    """One class. `right`, `taken` and `interval` are of single-label data, `chance` of multi-label data."""

    name: str
    videos: int
    value: float | None
    right: int
    interval: Limits | None
    chance: float | None
    taken: tuple[str, int] | None
    """The most frequent wrong answer and how often it was given."""


def metric_rows(record: Mapping[str, Any]) -> list[MetricRow]:
    """All metrics in the record's order, shares in 0..1."""
    intervals, chance = record.get("intervals", {}), record["chance"]
    large = [
        name
        for name in HEADLINE
        if record["metrics"].get(name) is not None and (chance.get(name) is None or chance[name] < 1)
    ][:NUM_HEADLINE]
    return [
        MetricRow(
            label=METRICS.get(name, (name, ""))[0],
            help=METRICS.get(name, (name, ""))[1],
            value=value,
            readable=record["metrics_readable"][name],
            interval=_limits(intervals.get(name)),
            chance=chance.get(name),
            headline=name in large,
        )
        for name, value in record["metrics"].items()
        if name != "classes_without_positives"
    ]


def class_rows(result: EvaluationResult, record: Mapping[str, Any]) -> list[ClassRow]:
    """All classes in class order."""
    counts = None if result.multi_label else confusion_matrix(result.scores, result.targets)
    answers = [*result.class_names, "unreadable"]
    rows = []
    for k, entry in enumerate(record["per_class"]):
        videos, right, interval, taken, chance = int(entry["videos"]), 0, None, None, None
        if counts is not None and videos:
            right, taken = int(counts[k, k]), _most_frequent_mistake(counts[k], k, answers)
            interval = wilson(right, videos)[:2]
        elif videos:
            chance = chance_levels(result.targets[:, k : k + 1], multi_label=True)["mAP"]
        rows.append(
            ClassRow(
                name=result.class_names[k],
                videos=videos,
                value=entry["average_precision" if counts is None else "accuracy"],
                right=right,
                interval=interval,
                chance=chance,
                taken=taken,
            )
        )
    return rows


def confusion_rows(counts: NDArray[np.int64], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent mistakes among readable videos: true class, answer, count, share of the class's videos."""
    mistakes = counts[:, : len(class_names)].copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:NUM_CONFUSIONS]
    places = [divmod(int(place), len(class_names)) for place in order]
    return [
        {
            "true": class_names[row],
            "answer": class_names[column],
            "count": int(mistakes[row, column]),
            "share": float(mistakes[row, column] / counts[row].sum()),
        }
        for row, column in places
        if mistakes[row, column]
    ]


def matrix_data(counts: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix for the script: cells (true, answer, count) that are not zero."""
    cells = np.argwhere(counts)
    return {
        "names": [visible(name) for name in class_names],
        "unreadable": bool(counts[:, -1].any()),
        "cells": [[int(row), int(column), int(counts[row, column])] for row, column in cells],
    }


def percent(value: float | None, digits: int = 1) -> str:
    """A share as the page writes it, without the sign."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _most_frequent_mistake(counts_of_class: NDArray[np.int64], k: int, answers: list[str]) -> tuple[str, int] | None:
    mistakes = counts_of_class.copy()
    mistakes[k] = 0
    most = int(np.argmax(mistakes))
    return (answers[most], int(mistakes[most])) if mistakes[most] else None


def _limits(interval: Mapping[str, float | None] | None) -> Limits | None:
    if interval is None or interval["low"] is None or interval["high"] is None:
        return None
    return float(interval["low"]), float(interval["high"])
