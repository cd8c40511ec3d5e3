"""The official Charades scorer (rules of `Charades_v1_classify.m`), vectorised, for any number of classes.

Axes: N annotated videos in annotation order, K classes. The rules decide published numbers:

- scores start at -inf; a video without actions keeps them, whatever was submitted, and has no positives: it is ranked
  last and costs nothing;
- a video with actions and no submitted line keeps -inf too, but its actions count as positives that were missed;
- of several lines with one id the last counts;
- per class, a stable descending sort (equal scores keep annotation order) and the mean over the positives of the
  precision at each, without interpolation;
- mAP is the plain mean over classes; weighted AP weights by positives; a class without positives makes both NaN;
- a submitted line has an id and K numbers, separated by tabs or blanks; a further one is ignored. The original goes on
  with lines of any greater length, and reads what is no number as NaN, which ranks last; here both are errors that name
  the line, because such a file is broken.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidtl.data.formats.text_files import read_columns
from vidtl.errors import UserError
from vidtl.metrics.average_precision import sklearn_average_precisions
from vidtl.runtime.files import whole_file

_ACTION = re.compile(r"c(\d+)\s+\S+\s+\S+")


@dataclass(frozen=True, kw_only=True)
class CharadesScores:
    """What the official scorer reports, in 0..1."""

    mean_ap: float
    """Plain mean over classes; NaN if any class has no positive."""
    weighted_ap: float
    """Mean over classes weighted by their positives; NaN if any class has no positive."""
    average_precisions: NDArray[np.float64]
    """[K]; NaN for classes without positives."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission file, one row per id; of repeated ids the last line."""

    ids: list[str]
    scores: NDArray[np.float64]
    """[len(ids), K]."""
    num_repeated: int
    """Lines that a later line with the same id replaced."""


def official_scores(scores_NK: NDArray[np.float64], targets_NK: NDArray[np.generic]) -> CharadesScores:
    """Score rows in annotation order.

    Args:
        scores_NK: float64 [N, K]; -inf rows are videos without a prediction.
        targets_NK: [N, K] of 0 and 1.

    Raises:
        ValueError: shapes that differ, or NaN scores.
    """
    targets: NDArray[np.bool_] = np.asarray(targets_NK).astype(bool)
    scores = np.array(scores_NK, dtype=np.float64)
    if scores.shape != targets.shape or np.isnan(scores).any():
        raise ValueError(f"scores {scores.shape} must have the shape of targets {targets.shape} and hold no NaN")
    scores[~targets.any(axis=1)] = -np.inf
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(targets, order, axis=0)
    precision = hits.cumsum(axis=0) / np.arange(1, len(hits) + 1)[:, None]
    positives = hits.sum(axis=0)
    sums = (precision * hits).sum(axis=0)
    average_precisions = np.where(positives > 0, sums / np.maximum(positives, 1), np.nan)
    return CharadesScores(
        mean_ap=float(average_precisions.mean()) if positives.all() else math.nan,
        weighted_ap=float(sums.sum() / positives.sum()) if positives.all() else math.nan,
        average_precisions=average_precisions,
    )


@dataclass(frozen=True, kw_only=True)
class SubmissionScores:
    """What a submission file is worth, and what was odd about it."""

    official: CharadesScores
    sklearn_mean_ap: float
    """scikit-learn's macro average over all annotated videos, those without actions included; missing ones last."""
    missing_ids: list[str]
    """Videos with actions for which nothing was submitted; their actions count as missed."""
    unknown_ids: list[str]
    """Submitted ids that the annotation does not have; they are ignored."""
    num_repeated: int
    """Lines that a later line with the same id replaced."""


def score_submission(path: Path, ids: Sequence[str], targets_NK: NDArray[np.generic]) -> SubmissionScores:
    """Score a submission file against the annotation.

    Args:
        path: file of `write_submission`, or of anyone who follows the same format.
        ids: N video ids in the order of the annotation file, which decides ties.
        targets_NK: [N, K] of 0 and 1.

    Raises:
        UserError: see `read_submission`.
    """
    targets: NDArray[np.bool_] = np.asarray(targets_NK).astype(bool)
    submission = read_submission(path, targets.shape[1])
    row_of = {video: row for row, video in enumerate(submission.ids)}
    scores = np.full(targets.shape, -np.inf)
    matched = [(i, row_of[video]) for i, video in enumerate(ids) if video in row_of]
    if matched:
        rows, submitted = np.array(matched).T
        scores[rows] = submission.scores[submitted]
    has_actions = np.any(targets, axis=1)
    annotated = set(ids)
    return SubmissionScores(
        official=official_scores(scores, targets),
        sklearn_mean_ap=float(sklearn_average_precisions(scores, targets).mean()),
        missing_ids=[video for i, video in enumerate(ids) if has_actions[i] and video not in row_of],
        unknown_ids=[video for video in submission.ids if video not in annotated],
        num_repeated=submission.num_repeated,
    )


def read_annotations(path: Path, num_classes: int) -> tuple[list[str], NDArray[np.bool_]]:
    """Ids and actions [N, K] of Charades' own CSV, as the official scorer reads it; times play no part.

    Raises:
        UserError: no such file, a row that is not in order, or a class beyond `num_classes`; names file and line.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; the CSV of a split of Charades is needed, such as Charades_v1_test.csv")
    ids: list[str] = []
    labels: list[list[int]] = []
    for line, values in read_columns(path, {"id": "id", "actions": "actions"}):
        ids.append(values["id"])
        labels.append([])
        for action in filter(None, map(str.strip, values["actions"].split(";"))):
            parsed = _ACTION.fullmatch(action)
            if parsed is None or int(parsed[1]) >= num_classes:
                last = f"c{num_classes - 1:03d}"
                raise UserError(f"{path}:{line}: actions has {action!r}; allowed: 'c000 <start> <end>' to {last!r}")
            labels[-1].append(int(parsed[1]))
    if not ids:
        raise UserError(f"{path} has no videos")
    targets = np.zeros((len(ids), num_classes), bool)
    for row, classes in zip(targets, labels, strict=True):
        row[classes] = True
    return ids, targets


def write_submission(path: Path, ids: Sequence[str], scores_NK: NDArray[np.float64]) -> None:
    """Write one line per video: its id and K numbers, separated by blanks, exact to the last bit of float64.

    Raises:
        UserError: an id that is empty or holds white space, which the format cannot hold.
        ValueError: lengths that differ, or NaN scores.
    """
    scores = np.asarray(scores_NK, dtype=np.float64)
    if len(scores) != len(ids) or np.isnan(scores).any():
        raise ValueError(f"{len(ids)} ids need as many rows of scores without NaN; got {scores.shape}")
    for video in ids:
        if len(video.split()) != 1 or video != video.strip():
            raise UserError(f"video id {video!r} cannot stand in {path}: ids there hold no white space")
    lines = [f"{video} {' '.join(map(repr, row))}\n" for video, row in zip(ids, scores.tolist(), strict=True)]
    with whole_file(path) as file:
        file.writelines(lines)


def read_submission(path: Path, num_classes: int) -> Submission:
    """Read lines of an id and `num_classes` numbers, separated by tabs or blanks; one further number is ignored.

    Raises:
        UserError: no such file, a line with another count, or one that is not a number; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a submission: {error}") from None
    rows: dict[str, NDArray[np.float64]] = {}
    num_lines = 0
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        rows[words[0]] = _numbers(words[1:], num_classes, f"{path}:{number}")
        num_lines += 1
    scores = np.array(list(rows.values()), dtype=np.float64).reshape(len(rows), num_classes)
    return Submission(ids=list(rows), scores=scores, num_repeated=num_lines - len(rows))


def _numbers(words: list[str], num_classes: int, place: str) -> NDArray[np.float64]:
    if len(words) not in (num_classes, num_classes + 1):
        raise UserError(f"{place} has {len(words)} numbers; allowed: {num_classes} or {num_classes + 1}")
    try:
        values = np.array(words[:num_classes], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    if np.isnan(values).any():
        raise UserError(f"{place} holds a score that is not a number (nan); allowed: real numbers, inf and -inf")
    return values
