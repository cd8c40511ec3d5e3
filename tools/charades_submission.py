"""`eval.py --charades-submission FILE --annotations CSV`: score a file by the official rules, without a model."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidtl.annotations.text_files import read_columns
from vidtl.errors import UserError
from vidtl.metrics import METRICS, Outcomes
from vidtl.metrics.charades import match_submission, official_scores
from vidtl.runtime.files import say

NUM_CLASSES, SHOWN_IDS = 157, 5

_ACTION = re.compile(r"c(\d+)\s+\S+\s+\S+")


def score_file(file: Path, annotations: Path) -> None:
    """Print the scores of a submission file, and its irregularities."""
    ids, targets_NK = read_annotations(annotations, NUM_CLASSES)
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


def read_annotations(path: Path, num_classes: int) -> tuple[list[str], NDArray[np.bool_]]:
    """Read ids and actions [N, K] of the official CSV, without times; UserError names file and line."""
    if not path.is_file():
        raise UserError(f"{path} is no file; the CSV of a split of Charades is needed, such as Charades_v1_test.csv")
    ids: list[str] = []
    rows: list[NDArray[np.bool_]] = []
    for line, values in read_columns(path, {"id": "id", "actions": "actions"}):
        ids.append(values["id"])
        rows.append(np.zeros(num_classes, bool))
        for action in filter(None, map(str.strip, values["actions"].split(";"))):
            parsed = _ACTION.fullmatch(action)
            if parsed is None or int(parsed[1]) >= num_classes:
                last = f"c{num_classes - 1:03d}"
                raise UserError(f"{path}:{line}: actions has {action!r}; allowed: 'c000 <start> <end>' to {last!r}")
            rows[-1][int(parsed[1])] = True
    if not ids:
        raise UserError(f"{path} has no videos")
    return ids, np.array(rows)
