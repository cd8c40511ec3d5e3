"""Which videos a person should look at first.

Axes: N videos, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.classification import unreadable_rows

NUM_EACH = 4
"""Videos of either kind."""

NUM_BARS = 5
"""Classes shown per video, best first; true classes further down are added below."""

MAX_TRUE_BARS = 8


@dataclass(frozen=True)
class ClassBar:
    """One class of one video."""

    name: str
    probability: float
    rank: int
    """From 1; equal probabilities go to the lower class number."""
    true: bool


@dataclass(frozen=True)
class Example:
    """One video and what the model says of it."""

    index: int
    """Number of the video in the annotation, from 0."""
    id: str
    path: str
    bars: list[ClassBar]
    """The best classes, and the true ones further down."""
    num_true_left_out: int


def example_indices(result: EvaluationResult) -> list[int]:
    """Numbers of the videos that the page shows, each once."""
    wrong = confidently_wrong(result)
    return [example.index for example in [*wrong, *hardest(result, wrong)]]


def confidently_wrong(result: EvaluationResult) -> list[Example]:
    """Readable videos by the probability of a class that they do not have, largest first.

    Single label: the class is the model's answer. Multi-label: the best of the absent classes; a video that has all
    classes cannot be wrong in this way.
    """
    absent_NK = ~result.targets.astype(bool)
    if not result.multi_label:
        absent_NK &= np.arange(len(result.class_names)) == result.scores.argmax(axis=1, keepdims=True)
    highest = np.where(absent_NK, result.probabilities, -1.0).max(axis=1)
    candidates = np.flatnonzero(~unreadable_rows(result.scores) & (highest >= 0))
    return _examples(result, candidates, -highest)


def hardest(result: EvaluationResult, shown: list[Example]) -> list[Example]:
    """Readable videos by the probability of their least probable true class, smallest first, without those `shown`."""
    lowest = np.where(result.targets.astype(bool), result.probabilities, 2.0).min(axis=1)
    candidates = np.flatnonzero(~unreadable_rows(result.scores) & (lowest <= 1))
    left_out = [example.index for example in shown]
    return _examples(result, np.setdiff1d(candidates, left_out), lowest)


def _examples(result: EvaluationResult, candidates: NDArray[np.int64], order_N: NDArray[np.float64]) -> list[Example]:
    """The first `NUM_EACH` candidates in rising order; of equal ones, those annotated first."""
    chosen = candidates[np.argsort(order_N[candidates], kind="stable")][:NUM_EACH]
    return [_example(result, int(index)) for index in chosen]


def _example(result: EvaluationResult, index: int) -> Example:
    order = np.argsort(-result.scores[index], kind="stable").tolist()
    bars = [
        ClassBar(result.class_names[k], float(result.probabilities[index, k]), rank, bool(result.targets[index, k]))
        for rank, k in enumerate(order, start=1)
    ]
    further = [bar for bar in bars if bar.true and bar.rank > NUM_BARS]
    return Example(
        index=index,
        id=result.ids[index],
        path=result.paths[index],
        bars=[*bars[:NUM_BARS], *further[:MAX_TRUE_BARS]],
        num_true_left_out=max(len(further) - MAX_TRUE_BARS, 0),
    )
