"""Reading `predictions.csv` again, by its documentation."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PredictionTable(NamedTuple):
    """N videos; scores and targets are [N, K], with scores of -inf for unreadable videos."""

    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[str]
    scores: NDArray[np.float64]
    targets: NDArray[np.bool_]


def read_predictions(path: Path) -> PredictionTable:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    columns = [name for name in rows[0] if name.startswith("score: ")]
    names = tuple(column.removeprefix("score: ") for column in columns)
    labels = [next(csv.reader(io.StringIO(row["true_labels"], newline=""), delimiter="|"), []) for row in rows]
    assert {name for each in labels for name in each} <= {*names}
    return PredictionTable(
        class_names=names,
        ids=[row["id"] for row in rows],
        paths=[row["path"] for row in rows],
        scores=np.array([[float(row[column] or "-inf") for column in columns] for row in rows]),
        targets=np.array([[name in each for name in names] for each in labels]),
    )
