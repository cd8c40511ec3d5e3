"""Predictions for a split without labels, in the official form of the data set or as a plain CSV.

- `charades`: id and K scores, separated by blanks, for `Charades_v1_classify.m`
- `ssv2`: `id;n1;n2;n3;n4;n5`, the numbers of the best classes in `labels.json`, best first
- `csv`: `id`, `top_1` and a column `score: <class>` for each class, under a header; unreadable videos are empty cells
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidtl.evaluation.predict import Prediction
from vidtl.evaluation.predictions import NUM_TOP_LABELS, SCORE
from vidtl.metrics.charades import write_submission
from vidtl.runtime.files import whole_file


def write_predicted(form: str, path: Path, ids: Sequence[str], predictions: Sequence[Prediction]) -> None:
    """Write the predictions of a split in one of the forms above; UserError if the file cannot be written."""
    pairs = list(zip(ids, predictions, strict=True))
    scored = [(video, each.scores) for video, each in pairs if each.scores is not None]
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "charades":
        write_submission(path, [video for video, _ in scored], np.array([scores for _, scores in scored]))
        return
    with whole_file(path) as file:
        if form == "ssv2":
            for video, scores in scored:
                best = np.argsort(-scores, kind="stable")[:NUM_TOP_LABELS]
                file.write(";".join([video, *map(str, best.tolist())]) + "\n")
            return
        writer = csv.writer(file)
        names = predictions[0].class_names
        writer.writerow(["id", "top_1", *(f"{SCORE}{name}" for name in names)])
        for video, each in pairs:
            scores_K = [""] * len(names) if each.scores is None else map(repr, each.scores.tolist())
            writer.writerow([video, *([best.name for best in each.best(1)] or [""]), *scores_K])
