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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidtl.errors import UserError, did_you_mean
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.runtime.files import whole_file

FILE_NAME = "predictions.csv"

NUM_TOP_LABELS, FIRST_COLUMNS, SCORE = 5, ("id", "path", "true_labels", "status"), "score: "


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """Content of `predictions.csv`."""

    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    scores: NDArray[np.float64]
    """[N, K]; rows of -inf are unreadable videos."""
    targets: NDArray[np.bool_]
    """[N, K]."""


def write_predictions(result: EvaluationResult, path: Path) -> None:
    """Write the file whole."""
    names, outcomes = result.class_names, result.outcomes
    num_top = min(NUM_TOP_LABELS, len(names))
    best = np.argsort(-outcomes.scores, axis=1, kind="stable")[:, :num_top]
    with whole_file(path) as file:
        writer = csv.writer(file)
        top = [f"top_{place}" for place in range(1, num_top + 1)]
        writer.writerow([*FIRST_COLUMNS, *top, *(f"{SCORE}{name}" for name in names)])
        for i, video in enumerate(result.ids):
            row = [video, result.paths[i], _joined([names[k] for k in np.flatnonzero(outcomes.targets[i])])]
            if outcomes.readable[i]:
                writer.writerow([*row, "scored", *(names[k] for k in best[i]), *map(repr, outcomes.scores[i].tolist())])
            else:
                writer.writerow([*row, "unreadable", *[""] * (num_top + len(names))])


def read_predictions(path: Path) -> PredictionTable:
    """Read a file of `write_predictions`, with every name and every bit of the scores.

    Raises:
        UserError: a missing or foreign file, or a label that is no class.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        columns = [i for i, name in enumerate(header) if name.startswith(SCORE)]
        if tuple(header[:4]) != FIRST_COLUMNS or not columns:
            raise ValueError(f"its columns begin {', '.join(header[:4])!r}, not {', '.join(FIRST_COLUMNS)!r}")
        scores = np.full((len(rows), len(columns)), -np.inf)
        for i, row in enumerate(rows):
            if row[3] == "scored":
                scores[i] = [float(row[column]) for column in columns]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as the predictions of an evaluation: {error}") from None
    class_names = tuple(header[column].removeprefix(SCORE) for column in columns)
    number = {name: k for k, name in enumerate(class_names)}
    targets = np.zeros(scores.shape, bool)
    for i, row in enumerate(rows):
        for name in _parted(row[2]):
            if name not in number:
                raise UserError(f"{path}: true_labels of {row[0]!r} has {name!r}; {did_you_mean(name, class_names)}")
            targets[i, number[name]] = True
    ids, paths = ([row[column] for row in rows] for column in (0, 1))
    return PredictionTable(class_names=class_names, ids=ids, paths=paths, scores=scores, targets=targets)


def _joined(names: Sequence[str]) -> str:
    cell = io.StringIO()
    csv.writer(cell, delimiter="|").writerow(names)
    return cell.getvalue().removesuffix("\r\n")


def _parted(cell: str) -> list[str]:
    return next(csv.reader(io.StringIO(cell, newline=""), delimiter="|"), [])
