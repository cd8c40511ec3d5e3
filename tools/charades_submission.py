"""Official scores of a file, for `eval.py --charades-submission` and `--charades-localization`: no model is needed."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.annotations.text_files import read_columns
from vidtl.errors import UserError
from vidtl.metrics import METRICS, Outcomes
from vidtl.metrics.average_precision import Rankings
from vidtl.metrics.charades import match_submission, official_rankings, scores_of
from vidtl.metrics.charades_localize import NUM_POINTS, point_labels, point_times, read_localization
from vidtl.runtime.files import say

NUM_CLASSES, SHOWN_IDS = 157, 5

_SECONDS = r"(-?\d+\.?\d*)"
_ACTION = re.compile(rf"c(\d+)\s+{_SECONDS}\s+{_SECONDS}")


class Annotations(NamedTuple):
    """Ids [N], which may repeat; video, class, and start and end [2] in seconds of L actions; lengths [N] or NaN."""

    ids: list[str]
    owners: NDArray[np.int64]
    classes: NDArray[np.int64]
    spans_s: NDArray[np.float64]
    lengths_s: NDArray[np.float64]


def score_file(file: Path, annotations: Path) -> None:
    """Print the scores of a submission file, and its irregularities."""
    ids, owners, classes, *_ = read_annotations(annotations, NUM_CLASSES)
    targets_NK = np.zeros((len(ids), NUM_CLASSES), bool)
    targets_NK[owners, classes] = True
    submission = match_submission(file, ids, targets_NK)
    num_labeled = int(targets_NK.any(axis=1).sum())
    say(f"{annotations}: {len(ids)} videos, {num_labeled} of them with actions")
    official = scores_of(official_rankings(submission.scores, targets_NK))
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
    ids, *labels, lengths_s = read_annotations(annotations, NUM_CLASSES, timed=True)
    scores_RK, irregularities = read_localization(file, ids, NUM_CLASSES)
    targets_RK = point_labels(point_times(lengths_s), *labels, num_classes=NUM_CLASSES)
    official = scores_of(Rankings.of(scores_RK, targets_RK, keep_order=True))
    say(f"{annotations}: {len(ids)} videos x {NUM_POINTS} points, {int(targets_RK.sum())} positives")
    say(f"Per-Frame mAP  {official.mean_ap:.6f}  official: all classes, equal scores in the order of rows")
    say(f"Per-Frame WAP  {official.weighted_ap:.6f}  official: weighted by the positives of each class")
    found = official.average_precisions[targets_RK.any(axis=0)]
    text = f"mean over the {len(found)} of {NUM_CLASSES} classes with positives"
    say(f"with positives {found.sum() / max(len(found), 1):.6f}  {text}")
    no_length = {"videos have no number as length, and rows without actions": int(np.isnan(lengths_s).sum())}
    for remark, count in (irregularities | no_length).items():
        if count:
            say(f"{count} {remark}")


def read_annotations(path: Path, num_classes: int, timed: bool = False) -> Annotations:
    """Read the official CSV, with lengths if `timed`; columns are in any order; UserError names file and line."""
    if not path.is_file():
        raise UserError(f"{path} is no file; the CSV of a split of Charades is needed, such as Charades_v1_test.csv")
    ids: list[str] = []
    actions: list[tuple[float, ...]] = []
    lengths_s: list[float] = []
    for line, values in read_columns(path, {name: name for name in ("id", "actions", "length")[: 2 + timed]}):
        for action in filter(None, map(str.strip, values["actions"].split(";"))):
            parsed = _ACTION.fullmatch(action)
            if parsed is None or int(parsed[1]) >= num_classes:
                last = f"c{num_classes - 1:03d}"
                raise UserError(f"{path}:{line}: actions has {action!r}; allowed: 'c000 <start> <end>' to {last!r}")
            actions.append((len(ids), *map(float, parsed.groups())))
        ids.append(values["id"])
        length = values.get("length", "")
        lengths_s.append(float(length) if re.fullmatch(_SECONDS, length) else math.nan)
    if not ids:
        raise UserError(f"{path} has no videos")
    table = np.array(actions).reshape(-1, 4)
    return Annotations(ids, *table[:, :2].astype(np.int64).T, table[:, 2:], np.array(lengths_s))
