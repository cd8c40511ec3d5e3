"""`predictions.csv`: one row per annotated video, from which every metric can be computed again.

| column                 | content                                                                       |
|------------------------|-------------------------------------------------------------------------------|
| `id`, `path`           | as annotated; the path is relative to `data.root`                             |
| `true_labels`          | class names with `|` between them                                             |
| `status`               | `scored` or `unreadable`                                                      |
| `top_1` ... `top_5`    | the best classes, best first                                                  |
| `score: <class>` x K   | the fused score, exact to the last bit of float64; empty in unreadable videos |

Text is written as `vidtl.runtime.escape` says: inert in spreadsheets, and nothing lost. Axes: N videos, K classes.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vidtl.errors import UserError, did_you_mean
from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.classification import unreadable_rows
from vidtl.runtime.escape import cell_text, labels_cell, original_labels, original_text
from vidtl.runtime.files import whole_file

FILE_NAME = "predictions.csv"

NUM_TOP_LABELS = 5
"""Columns of best labels, or fewer where there are fewer classes."""

FIRST_COLUMNS = ("id", "path", "true_labels", "status")
SCORE = "score: "


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """What `predictions.csv` holds."""

    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    labels: list[list[str]]
    """True classes of each video."""
    scores: NDArray[np.float64]
    """[N, K]; rows of -inf are unreadable videos."""

    def targets(self) -> NDArray[np.float32]:
        """[N, K] of 0 and 1."""
        number = {name: k for k, name in enumerate(self.class_names)}
        targets = np.zeros(self.scores.shape, np.float32)
        for row, names in zip(targets, self.labels, strict=True):
            row[[number[name] for name in names]] = 1
        return targets


def write_predictions(result: EvaluationResult, path: Path) -> None:
    """Write the file whole."""
    with whole_file(path) as file:
        _write(result, file)


def _write(result: EvaluationResult, file: IO[str]) -> None:
    names = [cell_text(name) for name in result.class_names]
    num_top = min(NUM_TOP_LABELS, len(names))
    top = [f"top_{place}" for place in range(1, num_top + 1)]
    writer = csv.writer(file)
    writer.writerow([*FIRST_COLUMNS, *top, *(f"{SCORE}{name}" for name in names)])
    best = np.argsort(-result.scores, axis=1, kind="stable")[:, :num_top]
    unreadable = unreadable_rows(result.scores)
    for i, video in enumerate(result.ids):
        labels = [result.class_names[k] for k in np.flatnonzero(result.targets[i])]
        row = [cell_text(video), cell_text(result.paths[i]), labels_cell(labels)]
        if unreadable[i]:
            writer.writerow([*row, "unreadable", *[""] * (num_top + len(names))])
        else:
            writer.writerow([*row, "scored", *(names[k] for k in best[i]), *map(repr, result.scores[i].tolist())])


def read_predictions(path: Path) -> PredictionTable:
    """Read what `write_predictions` wrote, every name and every bit of the scores.

    Raises:
        UserError: no such file, or another one, or a label that is no class; names the line.
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
    class_names = tuple(original_text(header[column].removeprefix(SCORE)) for column in columns)
    known, labels = set(class_names), [original_labels(row[2]) for row in rows]
    for line, names in enumerate(labels, start=2):
        for name in names:
            if name not in known:
                raise UserError(f"{path}:{line}: true_labels has {name!r}; {did_you_mean(name, class_names)}")
    return PredictionTable(
        class_names=class_names,
        ids=[original_text(row[0]) for row in rows],
        paths=[original_text(row[1]) for row in rows],
        labels=labels,
        scores=scores,
    )
