"""The official Charades localization scorer (rules of `Charades_v1_localize.m`), vectorized, for any number of classes.

Axes: N annotated videos in annotation order, P = 25 time points of each, R = N * P rows, K classes, L labels.

- Point j of 0 to 24 is at j / 25 * length, divided first; a class is positive where start <= t <= end, as annotated.
- Rows start at -inf. One without a submitted line keeps it: it ranks last, and its positives are missed. Unlike in
  classification, videos without actions count as negatives with their submitted scores.
- Per class, a stable descending sort: equal scores keep the order of rows, NaN comes last, even after missing rows.
- Average precision and its means are those of `vidtl.metrics.charades`.
- The last line of an id and frame counts; others are ignored. Frames count from 1, or from 0 if the smallest is 0.

Here every line must have an id and a frame, and K numbers unless it is ignored, or else the error names it. The
original also takes one number for all classes, and expressions such as `1-2`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidtl.errors import UserError
from vidtl.metrics.average_precision import Floats
from vidtl.metrics.charades import parse_scores, submitted_lines, write_submission

NUM_POINTS = 25


def point_times(lengths_s: Floats) -> Floats:
    """Return the times of the points, [N, P], of videos of the given lengths, [N]; NaN for a length of NaN."""
    return np.arange(NUM_POINTS) / NUM_POINTS * lengths_s[:, None]


def point_labels(
    times_NP: Floats, owners_L: NDArray[np.integer], classes_L: NDArray[np.integer], spans_s: Floats, num_classes: int
) -> NDArray[np.bool_]:
    """Return the classes of each row, [R, K], from video, class, and start and end, [L, 2], of each label."""
    hits, points = np.nonzero((spans_s[:, :1] <= times_NP[owners_L]) & (times_NP[owners_L] <= spans_s[:, 1:]))
    targets = np.zeros((times_NP.size, num_classes), bool)
    targets[owners_L[hits] * NUM_POINTS + points, classes_L[hits]] = True
    return targets


def write_localization(path: Path, ids: Sequence[str], scores_NPK: Floats) -> None:
    """Write the rows [N, P, K], without those of -inf; see `write_submission`."""
    readable_NP = (scores_NPK > -np.inf).any(axis=2)
    keys = [f"{ids[video]} {point + 1}" for video, point in np.argwhere(readable_NP).tolist()]
    write_submission(path, keys, scores_NPK[readable_NP], num_words=2)


def read_localization(path: Path, ids: Sequence[str], num_classes: int) -> tuple[Floats, dict[str, int]]:
    """Read lines of an id, a frame and `num_classes` numbers between blanks, tabs or commas, in bounded memory.

    Return scores [R, K] of the annotated ids, -inf for missing rows; and numbers of irregular rows or lines by remark.
    UserError with file and line: no such file, a line without a frame, another count, or no numbers.
    """
    number_of = {video: number for number, video in enumerate(dict.fromkeys(ids))}
    scores = np.full((len(number_of), NUM_POINTS + 1, num_classes), -np.inf)  # of frames 0 to 25, one of them unused
    counts = np.zeros(scores.shape[:2], np.int64)
    smallest, num_unknown, num_lines = math.inf, 0, 0
    for place, line in submitted_lines(path):
        video, frame, rest, *_ = [*line.split(maxsplit=2), "", ""]
        try:
            smallest = min(smallest, int(frame))
        except ValueError:
            raise UserError(f"{place}: the frame is {frame[:40]!r}; allowed: id, whole number, scores") from None
        num_lines += 1
        num_unknown += video not in number_of
        if video in number_of and 0 <= int(frame) <= NUM_POINTS:
            key = number_of[video], int(frame)
            scores[key] = parse_scores(rest.replace(",", " ").split(), (num_classes,), place)
            counts[key] += 1
    points = slice(0, NUM_POINTS) if smallest == 0 else slice(1, NUM_POINTS + 1)
    rows, num_used, found = [number_of[video] for video in ids], int(counts[:, points].sum()), counts[:, points] > 0
    return scores[rows, points].reshape(-1, num_classes), {
        "rows are missing, which costs their actions": int((~found[rows]).sum()),
        "lines have unknown ids and are ignored": num_unknown,
        f"lines have frames other than the {NUM_POINTS} points and are ignored": num_lines - num_unknown - num_used,
        "lines have frames that count from 0, as the smallest one is 0": num_used * (smallest == 0),
        "lines are replaced by a later line of the same video and frame": num_used - int(found.sum()),
    }
