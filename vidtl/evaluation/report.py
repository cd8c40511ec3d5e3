"""Files and terminal lines of one evaluation; every file is written whole or not at all.

Axes: N videos, K classes. Names and paths come from strangers' files: `vidtl.runtime.escape` says how they are made
inert in CSV cells and terminal lines. JSON holds them exactly, in ASCII with escapes.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.evaluation import predictions
from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.calibration import calibration
from vidtl.metrics.classification import (
    chance_levels,
    classes_without_positives,
    confusion_matrix,
    per_class_accuracy,
    per_class_average_precision,
)
from vidtl.metrics.intervals import LEVEL, confidence_intervals
from vidtl.runtime.escape import cell_text, shown_text
from vidtl.runtime.files import whole_file
from vidtl.runtime.versions import installed_versions
from vidtl.visualize.confusion import draw_average_precision, draw_confusion

PACKAGES = ("vidtl", "accelerate", "numpy", "torch", "torchmetrics")

REMARKS = {
    "mAP_sklearn": "equal scores judged together, as mAP; classes without videos count as 0",
    "mAP_charades": "official: equal scores in annotation order, videos without labels left out",
    "ece": "probability against outcome, of readable videos",
}

METRICS = "metrics.json"

SHOWN_NAMES = 8
"""Names in one terminal line; the files hold all."""


def write_report(result: EvaluationResult, record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the files of an evaluation; to be called by one process.

    `metrics.json`, `predictions.csv`, `unreadable.csv` (if any), and for single-label data `confusion.csv` and
    `confusion.png`, for multi-label data `average_precision.png`.

    Args:
        record: `metrics_record(result)`.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / METRICS, folder / predictions.FILE_NAME]
    with whole_file(files[0]) as file:
        json.dump(record, file, indent=2, allow_nan=False)
        file.write("\n")
    predictions.write_predictions(result, files[1])
    unreadable = folder / "unreadable.csv"
    if result.unreadable:
        with whole_file(unreadable) as file:
            csv.writer(file).writerows([("id", "path", "reason"), *(map(cell_text, row) for row in result.unreadable)])
        files.append(unreadable)
    else:
        unreadable.unlink(missing_ok=True)  # of an earlier evaluation into the same folder
    if not result.multi_label:
        files.append(_write_confusion(result, folder / "confusion.csv"))
    return [*files, _draw(result, folder)]


def metrics_record(result: EvaluationResult) -> dict[str, Any]:
    """What `metrics.json` holds: numbers, null for those that do not exist, and names exactly as annotated.

    Bootstrapping the intervals takes some seconds.
    """
    single = not result.multi_label
    per_class = (per_class_accuracy if single else per_class_average_precision)(result.scores, result.targets)
    videos = result.targets.sum(axis=0)
    key = "accuracy" if single else "average_precision"
    return {
        "annotation": result.annotation,
        "root": result.root,
        "protocol": result.protocol,
        "num_clips": result.num_clips,
        "num_crops": result.num_crops,
        "num_views": result.num_clips * result.num_crops,
        "fusion": result.fusion,
        "multi_label": result.multi_label,
        "max_videos": result.max_videos,
        "num_classes": len(result.class_names),
        "num_annotated": result.num_annotated,
        "num_scored": result.num_scored,
        "num_unreadable": len(result.unreadable),
        "metrics": _json_numbers(result.metrics),
        "metrics_readable": _json_numbers(result.metrics_readable),
        "intervals": {
            name: {"low": _json_number(low), "high": _json_number(high), "level": LEVEL, "method": method}
            for name, (low, high, method) in confidence_intervals(result).items()
        },
        "chance": _json_numbers(chance_levels(result.targets, result.multi_label)),
        "classes_without_positives": classes_without_positives(result.targets, result.class_names),
        "calibration": _calibration_record(result),
        "per_class": [
            {"class": name, "videos": int(count), key: _json_number(value)}
            for name, count, value in zip(result.class_names, videos, per_class, strict=True)
        ],
        "unreadable": [row._asdict() for row in result.unreadable],
        "versions": installed_versions(PACKAGES),
    }


def _calibration_record(result: EvaluationResult) -> dict[str, Any]:
    found = calibration(result.probabilities, result.targets, result.multi_label)
    return {
        "ece": _json_number(found.ece),
        "edges": found.edges.tolist(),
        "counts": found.counts.tolist(),
        "confidences": [_json_number(value) for value in found.confidences],
        "accuracies": [_json_number(value) for value in found.accuracies],
    }


def summary_lines(result: EvaluationResult, record: Mapping[str, Any]) -> list[str]:
    """The evaluation as lines for a terminal: what was asked, what could be read, each metric beside its chance.

    Args:
        record: `metrics_record(result)`.
    """
    chance = chance_levels(result.targets, result.multi_label)
    views = result.num_clips * result.num_crops
    lines = [
        shown_text(f"{result.annotation}: {len(result.class_names)} classes"),
        f"protocol {result.protocol}: {result.num_clips} clips x {result.num_crops} crops = {views} views, "
        f"fusion {result.fusion}",
        f"{result.num_annotated} videos annotated, {result.num_scored} scored, {len(result.unreadable)} unreadable",
    ]
    if result.max_videos:
        lines.append(f"a quick look: at most the first {result.max_videos} videos of the annotation")
    header = f"{'metric':<24}{'value':>9}{'95% interval':>17}"
    header += f"{'readable':>11}" if result.unreadable else ""
    lines.append(f"{header}{'chance':>9}")
    for name, value in result.metrics.items():
        if name == "classes_without_positives":
            continue
        line = f"{name:<24}{_percent(value):>9}{_interval(record['intervals'].get(name)):>17}"
        line += f"{_percent(result.metrics_readable[name]):>11}" if result.unreadable else ""
        lines.append(f"{line}{_percent(chance[name]) if name in chance else '':>9}{_remark(name, chance)}".rstrip())
    return [*lines, *_exceptions(result)]


def _remark(name: str, chance: Mapping[str, float]) -> str:
    if name == "top1":
        return f"  (largest class {_percent(chance['largest_class'])})"
    if name == "mAP":
        return f"  (equal scores {_percent(chance['positive_rate'])})"
    if name in REMARKS:
        return f"  ({REMARKS[name]})"
    return ""


def _exceptions(result: EvaluationResult) -> list[str]:
    """Lines about everything the numbers do not show by themselves."""
    lines = []
    absent = classes_without_positives(result.targets, result.class_names)
    if absent:
        names = ", ".join(shown_text(name) for name in absent[:SHOWN_NAMES])
        more = f" and {len(absent) - SHOWN_NAMES} more" if len(absent) > SHOWN_NAMES else ""
        official = " (mAP_charades needs all classes)" if result.multi_label else ""
        lines.append(f"classes without videos, left out of the means{official}: {names}{more}")
    if result.unreadable:
        lines.append("unreadable videos count as wrong; 'readable' leaves them out:")
        lines += [
            f"  {shown_text(video.path)}: {shown_text(video.reason)}" for video in result.unreadable[:SHOWN_NAMES]
        ]
        if len(result.unreadable) > SHOWN_NAMES:
            lines.append(f"  and {len(result.unreadable) - SHOWN_NAMES} more, listed in unreadable.csv")
    return lines


def _draw(result: EvaluationResult, folder: Path) -> Path:
    title = f"{Path(result.annotation).name}, {result.protocol}"
    if result.multi_label:
        path = folder / "average_precision.png"
        average_precisions = per_class_average_precision(result.scores, result.targets)
        positives = result.targets.sum(axis=0).astype(np.int64)
        draw_average_precision(average_precisions, positives, result.num_annotated, result.class_names, path, title)
        return path
    path = folder / "confusion.png"
    draw_confusion(confusion_matrix(result.scores, result.targets), result.class_names, path, title)
    return path


def _write_confusion(result: EvaluationResult, path: Path) -> Path:
    """One row per true class, one column per predicted class, and a last one for unreadable videos."""
    names = [cell_text(name) for name in result.class_names]
    counts = confusion_matrix(result.scores, result.targets).tolist()
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["true class", *(f"predicted: {name}" for name in names), "unreadable"])
        writer.writerows([name, *row] for name, row in zip(names, counts, strict=True))
    return path


def _interval(limits: Mapping[str, Any] | None) -> str:
    if limits is None or limits["low"] is None:
        return ""
    return f"{100 * limits['low']:.2f}..{100 * limits['high']:.2f}%"


def _percent(value: float) -> str:
    return "none" if math.isnan(value) else f"{100 * value:.2f}%"


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _json_number(value) for name, value in values.items()}
