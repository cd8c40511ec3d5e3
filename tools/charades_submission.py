"""Scores of `eval.py --charades-submission` and `--charades-localization`: a file by the official rules, no model."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.annotations.text_files import read_columns
from vidtl.errors import UserError
from vidtl.metrics import METRICS, Outcomes
from vidtl.metrics.charades import match_submission, official_scores
from vidtl.metrics.charades_localize import (
    NUM_POINTS,
    localization_scores,
    point_labels,
    point_times,
    read_localization,
)
from vidtl.runtime.files import say

NUM_CLASSES, SHOWN_IDS = 157, 5

_ACTION = re.compile(r"c(\d+)\s+(\S+)\s+(\S+)")


class Annotations(NamedTuple):
    """The official CSV: ids [N] with repeats, and video, class, and start and end in seconds [L, 2] of each action."""

    ids: list[str]
    videos: NDArray[np.int64]
    classes: NDArray[np.int64]
    spans_s: NDArray[np.float64]
    lengths_s: NDArray[np.float64]
    """[N]; NaN for anything but a number."""

    def targets(self, num_classes: int) -> NDArray[np.bool_]:
        """Return the classes of whole videos, [N, K]."""
        targets = np.zeros((len(self.ids), num_classes), bool)
        targets[self.videos, self.classes] = True
        return targets


def score_file(file: Path, annotations: Path) -> None:
    """Print the scores of a submission file, and its irregularities."""
    annotated = read_annotations(annotations, NUM_CLASSES)
    ids, targets_NK = annotated.ids, annotated.targets(NUM_CLASSES)
    submission = match_submission(file, ids, targets_NK)
    num_labeled = int(targets_NK.any(axis=1).sum())
    say(f"{annotations}: {len(ids)} videos, {num_labeled} of them with actions")
    official = official_scores(submission.scores, targets_NK)
    scores, no_chances = submission.scores, np.zeros(targets_NK.shape)  # mAP needs no probabilities
    outcomes = Outcomes(scores=scores, targets=targets_NK, probabilities=no_chances, multi_label=True)
    grouped = METRICS["mAP"].function(outcomes)
    say(f"mAP           {official.mean_ap:.6f}  official: equal scores in file order, unlabeled videos left out")
    say(f"mAP weighted  {official.weighted_ap:.6f}  official: weighted by the videos of each class")
    say(f"mAP grouped   {grouped:.6f}  equal scores share a threshold, unlabeled videos count")
    for ids, remark in (
        (submission.missing_ids, "videos with actions are missing, which costs their actions"),
        (submission.unknown_ids, "videos are not in the annotation and are ignored"),
    ):
        if ids:
            shown = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
            say(f"{len(ids)} {remark}: {shown}")
    if submission.num_repeated:
        say(f"{submission.num_repeated} lines are replaced by a later line of the same video")


def score_localization(file: Path, annotations: Path) -> None:
    """Print the scores of a localization file, and its irregularities."""
    ids, videos, classes, spans_s, lengths_s = read_annotations(annotations, NUM_CLASSES, timed=True)
    submission = read_localization(file, ids, NUM_CLASSES)
    targets_RK = point_labels(point_times(lengths_s), videos, classes, spans_s, NUM_CLASSES)
    official = localization_scores(submission.scores, targets_RK)
    positives = targets_RK.sum(axis=0)
    rows = f"{len(targets_RK)} rows, {int(positives.sum())} positives"
    say(f"{annotations}: {len(ids)} videos x {NUM_POINTS} points = {rows}")
    say(f"Per-Frame mAP  {official.mean_ap:.6f}  official: all classes, equal scores in the order of the rows")
    say(f"Per-Frame WAP  {official.weighted_ap:.6f}  official: weighted by the positives of each class")
    num_found = f"mean over the {int((positives > 0).sum())} of {NUM_CLASSES} classes with positives"
    say(f"with positives {official.mean_ap_with_positives:.6f}  {num_found}")
    missing = [f"{ids[video]} {point + 1}" for video, point in np.argwhere(submission.missing)[:SHOWN_IDS].tolist()]
    for count, remark, examples in (
        (int(submission.missing.sum()), "rows are missing, which costs their actions", missing),
        (submission.num_unknown, "lines have unknown ids and are ignored", submission.unknown),
        (submission.num_other_frames, f"lines have frames other than the {NUM_POINTS} points and are ignored", []),
        (submission.num_repeated, "lines are replaced by a later line of the same video and frame", []),
        (int(np.isnan(lengths_s).sum()), "videos have a length that is no number, and rows without actions", []),
    ):
        if count:
            say(f"{count} {remark}{': ' * bool(examples)}{', '.join(examples)}{', ...' * (count > len(examples) > 0)}")
    if submission.first_frame == 0:
        say("the smallest frame of the file is 0: its frames count from 0")


def read_annotations(path: Path, num_classes: int, timed: bool = False) -> Annotations:
    """Read the official CSV, whose columns may have any order; UserError names file and line.

    Lengths are read, and times must be numbers, only if `timed`.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; the CSV of a split of Charades is needed, such as Charades_v1_test.csv")
    ids: list[str] = []
    actions: list[tuple[int, int]] = []
    spans_s: list[tuple[float, float]] = []
    lengths_s: list[float] = []
    wanted = ("id", "actions", "length") if timed else ("id", "actions")
    for line, values in read_columns(path, {name: name for name in wanted}):
        for action in filter(None, map(str.strip, values["actions"].split(";"))):
            parsed = _ACTION.fullmatch(action)
            start, end = map(_number, parsed.groups()[1:]) if parsed and timed else (0.0, 0.0)
            if parsed is None or int(parsed[1]) >= num_classes or math.isnan(start + end):
                last = f"c{num_classes - 1:03d}"
                raise UserError(f"{path}:{line}: actions has {action!r}; allowed: 'c000 <start> <end>' to {last!r}")
            actions.append((len(ids), int(parsed[1])))
            spans_s.append((start, end))
        ids.append(values["id"])
        lengths_s.append(_number(values.get("length", "")))
    if not ids:
        raise UserError(f"{path} has no videos")
    videos, classes = np.array(actions, np.int64).reshape(-1, 2).T
    return Annotations(ids, videos, classes, np.array(spans_s).reshape(-1, 2), np.array(lengths_s))


def _number(text: str) -> float:
    """Parse a finite number; NaN for any other text."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
