"""The official Charades scorer (rules of `Charades_v1_classify.m`), vectorized, for any number of classes.

Axes: N annotated videos in annotation order, K classes. The rules decide published numbers:

- scores start at -inf, which videos without actions keep, whatever was submitted: they rank last and cost nothing;
- those without a submitted line keep it too, but their actions count as positives that were missed;
- of several lines with one id the last counts;
- per class, a stable descending sort (equal scores keep annotation order) and the mean over the positives of the
  precision at each, without interpolation;
- mAP is the plain mean over classes; weighted AP weights by positives; a class without positives makes both NaN;
- a submitted line has an id and K numbers, separated by tabs or blanks; one further number is ignored. The original
  accepts longer lines, and reads any other text as NaN, which ranks last; here both are errors that name the line.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.errors import UserError
from vidtl.metrics.average_precision import Rankings
from vidtl.runtime.files import whole_file


class CharadesScores(NamedTuple):
    """Plain and weighted mean in 0..1, NaN if any class has no positive, and values [K], NaN for classes without."""

    mean_ap: float
    weighted_ap: float
    average_precisions: NDArray[np.float64]


class Submission(NamedTuple):
    """Scores [N, K] of a submission file in annotation order, -inf for videos that it lacks, and its irregularities.

    Actions of missing videos count as missed, unknown ids are ignored, and the last line of a repeated id counts.
    """

    scores: NDArray[np.float64]
    missing_ids: list[str]
    unknown_ids: list[str]
    num_repeated: int


def scores_of(rankings: Rankings) -> CharadesScores:
    """Score the result of `official_rankings`."""
    sums, positives = rankings.precision_sums(np.ones(rankings.order.shape[1], np.int64))
    average_precisions = np.where(positives > 0, sums / np.maximum(positives, 1), np.nan)
    means = (average_precisions.mean(), sums.sum() / positives.sum()) if positives.all() else (math.nan, math.nan)
    return CharadesScores(float(means[0]), float(means[1]), average_precisions)


def official_rankings(scores_NK: NDArray[np.float64], targets_NK: NDArray[np.generic]) -> Rankings:
    """Rank rows in annotation order as the official scorer does; rows of -inf are videos without a prediction."""
    targets, scores = targets_NK.astype(bool), np.array(scores_NK, dtype=np.float64)
    scores[~targets.any(axis=1)] = -np.inf
    return Rankings.of(scores, targets, keep_order=True)


def match_submission(path: Path, ids: Sequence[str], targets_NK: NDArray[np.generic]) -> Submission:
    """Read a submission (see `read_submission`), its rows in the order of the annotated ids, which decides ties."""
    rows, num_lines = read_submission(path, targets_NK.shape[1])
    absent, annotated, has_actions = np.full(targets_NK.shape[1], -np.inf), set(ids), targets_NK.sum(axis=1) > 0
    return Submission(
        scores=np.array([rows.get(video, absent) for video in ids]),
        missing_ids=[video for video, labeled in zip(ids, has_actions, strict=True) if labeled and video not in rows],
        unknown_ids=[video for video in rows if video not in annotated],
        num_repeated=num_lines - len(rows),
    )


def write_submission(path: Path, ids: Sequence[str], scores_NK: NDArray[np.float64], num_words: int = 1) -> None:
    """Write id and K numbers of each video, exact to the last bit; UserError for ids that are not of `num_words`."""
    for video in ids:
        if len(video.split()) != num_words or video != video.strip():
            raise UserError(f"video id {video!r} cannot be written to {path}; allowed: ids without white space")
    lines = (f"{video} {' '.join(map(repr, row.tolist()))}\n" for video, row in zip(ids, scores_NK, strict=True))
    with whole_file(path) as file:
        file.writelines(lines)


def read_submission(path: Path, num_classes: int) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Read scores [K] by id, of repeated ids the last ones, and count the lines; UserError with file and line."""
    rows, num_lines = {}, 0
    for place, line in submitted_lines(path):
        num_lines += 1
        video, *words = line.split()
        rows[video] = parse_scores(words, (num_classes, num_classes + 1), place)[:num_classes]
        if np.isnan(rows[video]).any():
            raise UserError(f"{place} holds a score that is not a number (nan); allowed: real numbers, inf and -inf")
    return rows, num_lines


def submitted_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `file:line` and text of each line that is not blank; UserError for a file that cannot be read."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(partial(file.readline, 1 << 20), ""), start=1):  # in bounded memory
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a submission: {error}") from None


def parse_scores(words: Sequence[str], counts: Sequence[int], place: str) -> NDArray[np.float64]:
    """Parse one of the allowed `counts` of numbers; UserError that names the `place`."""
    if len(words) not in counts:
        raise UserError(f"{place} has {len(words)} numbers; allowed: {' or '.join(map(str, counts))}")
    try:
        return np.array(words, dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
