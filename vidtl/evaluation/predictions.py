"""`predictions.csv`: one row per annotated video, from which every metric can be computed again.

| column                 | content                                                                       |
|------------------------|-------------------------------------------------------------------------------|
| `id`, `path`           | as annotated; the path is relative to `data.root`                             |
| `true_labels`          | class names, a nested CSV row with `|` as delimiter                           |
| `status`               | `scored` or `unreadable`                                                      |
| `top_1` ... `top_5`    | the best classes, best first                                                  |
| `score: <class>` x K   | the fused score, exact to the last bit of float64; empty in unreadable videos |

Lone surrogates, which UTF-8 cannot hold, become escapes (`\\udcff`). Axes: N videos, K classes.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.runtime.files import whole_file

FILE_NAME = "predictions.csv"
NUM_TOP_LABELS, SCORE = 5, "score: "


def write_predictions(result: EvaluationResult, path: Path) -> None:
    """Write the file whole."""
    names, outcomes = result.class_names, result.outcomes
    num_top = min(NUM_TOP_LABELS, len(names))
    best = np.argsort(-outcomes.scores, axis=1, kind="stable")[:, :num_top]
    with whole_file(path) as file:
        writer = csv.writer(file)
        top = [f"top_{place}" for place in range(1, num_top + 1)]
        writer.writerow(["id", "path", "true_labels", "status", *top, *(f"{SCORE}{name}" for name in names)])
        for i, video in enumerate(result.ids):
            row = [video, result.paths[i], _joined([names[k] for k in np.flatnonzero(outcomes.targets[i])])]
            if outcomes.readable[i]:
                writer.writerow([*row, "scored", *(names[k] for k in best[i]), *map(repr, outcomes.scores[i].tolist())])
            else:
                writer.writerow([*row, "unreadable", *[""] * (num_top + len(names))])


def _joined(names: Sequence[str]) -> str:
    cell = io.StringIO()
    csv.writer(cell, delimiter="|").writerow(names)
    return cell.getvalue().removesuffix("\r\n")
