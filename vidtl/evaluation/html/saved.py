"""An evaluation read back from its folder, so that its page can be written again without the model."""

import json
from math import nan
from pathlib import Path
from typing import Any

from vidtl.errors import UserError
from vidtl.evaluation.predictions import FILE_NAME, read_predictions
from vidtl.evaluation.report import METRICS
from vidtl.evaluation.result import EvaluationResult, Unreadable

# What `metrics.json` says in the words of `EvaluationResult`.
_SAME = ("annotation", "root", "protocol", "num_clips", "num_crops", "fusion", "multi_label", "max_videos")

# What the page takes from the record itself.
_SHOWN = ("num_classes", "num_unreadable", "chance", "classes_without_positives", "versions")


def read_evaluation(folder: Path) -> tuple[EvaluationResult, dict[str, Any]]:
    """The result and the record that `vidtl.evaluation.report.write_report` wrote.

    Raises:
        UserError: the folder does not hold the files of one evaluation.
    """
    path = folder / METRICS
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fields = {name: record[name] for name in _SAME}
        metrics = [{name: nan if value is None else value for name, value in record[key].items()}
                   for key in ("metrics", "metrics_readable")]  # fmt: skip
        unreadable = [Unreadable(**row) for row in record["unreadable"]]
        class_names = tuple(row["class"] for row in record["per_class"])
        if absent := [name for name in _SHOWN if name not in record]:
            raise KeyError(absent[0])
        num_annotated, num_scored = int(record["num_annotated"]), int(record["num_scored"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path} cannot be read as the metrics of an evaluation: {reason}") from None
    table = read_predictions(folder / FILE_NAME)
    if table.class_names != class_names or len(table.ids) != num_annotated:
        raise UserError(f"{folder / FILE_NAME} and {METRICS} are of different evaluations")
    result = EvaluationResult(
        **fields,
        num_annotated=num_annotated,
        num_scored=num_scored,
        unreadable=unreadable,
        metrics=metrics[0],
        metrics_readable=metrics[1],
        class_names=class_names,
        ids=table.ids,
        paths=table.paths,
        scores=table.scores,
        targets=table.targets(),
    )
    return result, record
