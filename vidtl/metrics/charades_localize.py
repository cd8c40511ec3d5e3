"""The official Charades localization scorer (rules of `Charades_v1_localize.m`), vectorized, for any number of classes.

Axes: N annotated videos in annotation order, P = 25 time points of each, K classes, L labels with times. A row is a
video at a point. The rules decide published numbers:

- point j of 0 to 24 is at j / 25 x length, divided first; the end of a video is no point;
- a class is positive where start <= t <= end holds for any of its labels; times are compared as annotated, unclipped;
- rows start at -inf, and one without a submitted line keeps it: it ranks last, and its positives are missed. A video
  without actions counts with its submitted scores, as negatives: `Charades_v1_classify.m` differs;
- per class, a stable descending sort (equal scores keep the order of the rows), then NaN, even after missing rows;
- average precision and its means are those of `vidtl.metrics.charades`;
- of several lines with one id and frame the last counts; unknown ids and frames are ignored;
- frames count from 1, or from 0 if the smallest one of the whole file, of unknown ids too, is 0.

Here a line of an annotated id and a frame of 0 to 25 must have K numbers, and any line an id and a frame, or else the
error names the line. The original stops at other counts, too, but takes one number for all classes and evaluates
expressions such as `1-2`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidtl.errors import UserError
from vidtl.metrics.average_precision import Rankings
from vidtl.metrics.charades import CharadesScores, parse_scores, scores_of, submitted_lines

NUM_POINTS = 25
"""P."""
_NUM_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class LocalizationSubmission:
    """Scores of a submission file in annotation order, and its irregularities."""

    scores: NDArray[np.float64]
    """[N * P, K]; -inf for rows that it lacks."""
    missing: NDArray[np.bool_]
    """[N, P] rows that it lacks; their positives count as missed."""
    unknown: list[str]
    """The first unknown ids, with their places."""
    num_unknown: int
    """Lines with ids that the annotation does not have; they are ignored."""
    num_other_frames: int
    """Lines of annotated ids with frames that are no points; they are ignored."""
    num_repeated: int
    """Lines that a later line with the same id and frame replaced."""
    first_frame: int
    """1, or 0 in a file whose smallest frame is 0."""


def point_times(lengths_s: ArrayLike) -> NDArray[np.float64]:
    """Return the times of the points, [N, P], of videos of the given lengths, [N]; NaN for the length NaN."""
    times: NDArray[np.float64] = np.arange(NUM_POINTS) / NUM_POINTS * np.asarray(lengths_s, np.float64)[:, None]
    return times


def point_labels(
    times_NP: NDArray[np.float64],
    videos_L: NDArray[np.int64],
    classes_L: NDArray[np.integer],
    spans_s: NDArray[np.float64],
    num_classes: int,
) -> NDArray[np.bool_]:
    """Return the classes of each row, [N * P, K], from video, class, and start and end [L, 2] of each label."""
    times = times_NP[videos_L]
    labels, points = np.nonzero((spans_s[:, :1] <= times) & (times <= spans_s[:, 1:]))
    targets = np.zeros((times_NP.size, num_classes), bool)
    targets[videos_L[labels] * times_NP.shape[1] + points, classes_L[labels]] = True
    return targets


def localization_scores(scores_RK: NDArray[np.float64], targets_RK: NDArray[np.bool_]) -> CharadesScores:
    """Score rows in annotation order, R = N * P; rows of -inf are missing, and NaN is allowed."""
    return scores_of(Rankings.of(scores_RK, targets_RK, keep_order=True))


def read_localization(path: Path, ids: Sequence[str], num_classes: int) -> LocalizationSubmission:
    """Read lines of an id, a frame and `num_classes` numbers, which blanks, tabs or commas separate.

    Memory is bounded by the number of annotated ids, whatever the file holds.

    Raises:
        UserError: no such file, a line without a frame, another count, or no numbers; names file and line.
    """
    number_of = {video: number for number, video in enumerate(dict.fromkeys(ids))}
    scores = np.full((len(number_of), NUM_POINTS + 1, num_classes), -np.inf)  # of frames 0 to 25, one of them unused
    counts = np.zeros(scores.shape[:2], np.int64)
    smallest, unknown, num_unknown, num_lines = math.inf, list[str](), 0, 0
    for place, line in submitted_lines(path):
        num_lines += 1
        video, frame, rest = _head(line, place)
        smallest = min(smallest, frame)
        if video not in number_of:
            num_unknown += 1
            unknown += [f"{video} ({place})"] * (num_unknown <= _NUM_EXAMPLES)
        elif 0 <= frame <= NUM_POINTS:
            scores[number_of[video], frame] = parse_scores(rest.replace(",", " ").split(), (num_classes,), place)
            counts[number_of[video], frame] += 1
    first = 0 if smallest == 0 else 1
    points = slice(first, first + NUM_POINTS)
    rows = [number_of[video] for video in ids]
    num_used, found = int(counts[:, points].sum()), counts[:, points] > 0
    return LocalizationSubmission(
        scores=scores[rows, points].reshape(-1, num_classes),
        missing=~found[rows],
        unknown=unknown,
        num_unknown=num_unknown,
        num_other_frames=num_lines - num_unknown - num_used,
        num_repeated=num_used - int(found.sum()),
        first_frame=first,
    )


def _head(line: str, place: str) -> tuple[str, int, str]:
    """Return id, frame and the text behind them."""
    video, frame, rest, *_ = [*line.split(maxsplit=2), "", ""]
    try:
        return video, int(frame), rest
    except ValueError:
        raise UserError(f"{place}: the frame is {frame[:40]!r}; allowed: an id, a whole number, then scores") from None
