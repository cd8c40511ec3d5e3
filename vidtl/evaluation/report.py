"""Files and terminal lines of one evaluation; every file is written whole or not at all.

`metrics.json` holds all numbers, with null for undefined ones, and names exactly as annotated.
Axes: N videos, K classes.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.evaluation import predictions
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.metrics import METRICS, chance_levels, confidence_intervals
from vidtl.metrics.charades import scores_of
from vidtl.metrics.intervals import LEVEL, wilson
from vidtl.metrics.table import random_map
from vidtl.runtime.files import whole_file
from vidtl.runtime.logging import installed_versions
from vidtl.visualize.classes import draw_average_precision, draw_confusion, draw_reliability

METRICS_FILE = "metrics.json"
PACKAGES = ("vidtl", "accelerate", "numpy", "torch", "torchmetrics")

SHOWN_NAMES, NUM_CONFUSIONS = 8, 12  # in a terminal line, and in `metrics.json`; other files hold all


def write_report(result: EvaluationResult, record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the files of an evaluation, on one process, and return their paths.

    `metrics.json` (of `metrics_record`), `predictions.csv`, `unreadable.csv` (if any), `reliability.png`; single-label
    data: `confusion.csv` and `confusion.png`, multi-label data: `average_precision.png`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes, names = result.outcomes, result.class_names
    title = f"{Path(result.annotation).name}, {result.protocol}"
    files = [folder / METRICS_FILE, folder / predictions.FILE_NAME, folder / "reliability.png"]
    with whole_file(files[0]) as file:
        json.dump(record, file, indent=2, allow_nan=False)
        file.write("\n")
    predictions.write_predictions(result, files[1])
    draw_reliability(outcomes.calibration, files[2], title)
    (folder / "unreadable.csv").unlink(missing_ok=True)  # of an earlier evaluation into the same folder
    if result.unreadable:
        files.append(_write_table(folder / "unreadable.csv", ("id", "path", "reason"), result.unreadable))
    if outcomes.multi_label:
        files.append(folder / "average_precision.png")
        draw_average_precision(outcomes, names, files[-1], title)
    else:
        header = ["true class", *(f"predicted: {name}" for name in names), "unreadable"]
        rows = ([name, *row] for name, row in zip(names, outcomes.confusion.tolist(), strict=True))
        files += [_write_table(folder / "confusion.csv", header, rows), folder / "confusion.png"]
        draw_confusion(outcomes.confusion, names, files[-1], title)
    return files


def metrics_record(result: EvaluationResult) -> dict[str, Any]:
    """Build the content of `metrics.json`; the bootstrap of the intervals takes some seconds."""
    outcomes, names = result.outcomes, result.class_names
    record: dict[str, Any] = {
        **{name: getattr(result, name) for name in ("annotation", "root", "protocol", "num_clips", "num_crops")},
        "num_views": result.num_clips * result.num_crops,
        "fusion": result.fusion,
        "multi_label": outcomes.multi_label,
        "max_videos": result.max_videos,
        "num_classes": len(names),
        "num_annotated": len(outcomes),
        "num_scored": result.num_scored,
        "num_unreadable": len(result.unreadable),
        "metrics": result.metrics,
        "metrics_readable": result.metrics_readable,
        "intervals": {
            name: {"low": low, "high": high, "level": LEVEL, "method": method}
            for name, (low, high, method) in confidence_intervals(outcomes, result.metrics).items()
        },
        "chance": chance_levels(outcomes.targets, outcomes.multi_label),
        "classes_without_positives": [names[k] for k in np.flatnonzero(outcomes.targets.sum(axis=0) == 0)],
        "calibration": {name: np.asarray(value).tolist() for name, value in vars(outcomes.calibration).items()},
        "per_class": [_class_record(result, k) for k in range(len(names))],
        "confusions": [] if outcomes.multi_label else _confusions(result),
        "unreadable": [row._asdict() for row in result.unreadable],
        "versions": installed_versions(PACKAGES),
    }
    if outcomes.points:
        of_points = scores_of(outcomes.point_rankings).average_precisions.tolist()
        for entry, value in zip(record["per_class"], of_points, strict=True):
            entry["average_precision_localize"] = value
        record["chance"]["mAP_localize_present"] = random_map(np.concatenate(outcomes.points[1]))
    return finite(record)  # type: ignore[no-any-return]


def summary_lines(result: EvaluationResult, record: Mapping[str, Any]) -> list[str]:
    """Format an evaluation and its `metrics_record` as lines for a terminal."""
    lines = [
        f"{result.annotation}: {len(result.class_names)} classes",
        f"protocol {result.protocol}: {views_text(result.num_clips, result.num_crops)}, fusion {result.fusion}",
        f"{record['num_annotated']} videos annotated, {result.num_scored} scored, {len(result.unreadable)} unreadable",
    ]
    if result.max_videos:
        lines.append(f"a quick look: at most the first {result.max_videos} videos of the annotation")
    readable = f"{'readable':>11}" if result.unreadable else ""
    lines.append(f"{'metric':<24}{'value':>9}{'95% interval':>17}{readable}{'chance':>9}")
    for name, value in result.metrics.items():
        limits, chance, is_share = record["intervals"].get(name), record["chance"], METRICS[name].is_share
        known = limits is not None and limits["low"] is not None
        interval = f"{100 * limits['low']:.2f}..{100 * limits['high']:.2f}%" if known else ""
        readable = f"{percent(result.metrics_readable[name], is_share):>11}" if result.unreadable else ""
        level = percent(chance[name]) if name in chance else ""
        baseline = METRICS[name].baseline
        remark = f" ({baseline[0].replace('_', ' ')} {percent(chance[baseline[0]])})" if baseline else ""
        line = f"{name:<24}{percent(value, is_share):>9}{interval:>17}{readable}{level:>9}"
        lines.append(f"{line}  {METRICS[name].remark}{remark}")
    return [*lines, *_exceptions(result, record)]


def views_text(num_clips: int, num_crops: int) -> str:
    """Describe the views of a video, such as `center crop, 1 clip`; every protocol of one crop takes the center."""
    crops = "center crop" if num_crops == 1 else f"{num_crops} crops"
    return f"{crops}, {num_clips} clip{'s' * (num_clips > 1)}"


def percent(value: float | None, is_share: bool = True) -> str:
    """Format a share in percent, another number as it is, or `none`."""
    if value is None or math.isnan(value):
        return "none"
    return f"{100 * value:.2f}%" if is_share else f"{value:.4f}"


def _exceptions(result: EvaluationResult, record: Mapping[str, Any]) -> list[str]:
    """List classes without videos, and unreadable videos."""
    lines = []
    if absent := record["classes_without_positives"]:
        names = ", ".join(absent[:SHOWN_NAMES])
        more = f" and {len(absent) - SHOWN_NAMES} more" if len(absent) > SHOWN_NAMES else ""
        total = len(result.class_names)
        lines.append(f"means over {total - len(absent)} of {total} classes, as these have no videos: {names}{more}")
    if result.unreadable:
        lines.append("unreadable videos count as wrong; 'readable' leaves them out:")
        lines += [f"  {video.path}: {video.reason}" for video in result.unreadable[:SHOWN_NAMES]]
        if len(result.unreadable) > SHOWN_NAMES:
            lines.append(f"  and {len(result.unreadable) - SHOWN_NAMES} more, listed in unreadable.csv")
    return lines


def _class_record(result: EvaluationResult, k: int) -> dict[str, Any]:
    """Describe one class: value, Wilson's interval and most frequent confusion, or value and chance level."""
    outcomes = result.outcomes
    videos, value = int(outcomes.targets[:, k].sum()), float(outcomes.per_class[k])
    entry: dict[str, Any] = {"class": result.class_names[k], "videos": videos}
    if outcomes.multi_label:
        return entry | {"average_precision": value, "chance": random_map(outcomes.targets[:, k : k + 1])}
    counts = outcomes.confusion[k].copy()
    right, counts[k] = int(counts[k]), 0
    answer = [*result.class_names, "unreadable"][int(counts.argmax())]
    interval = wilson(right, videos) if videos else None
    return entry | {
        "accuracy": value,
        "right": right,
        "interval": interval and [interval.low, interval.high],
        "taken_for": {"class": answer, "videos": int(counts.max())} if counts.any() else None,
    }


def _confusions(result: EvaluationResult) -> list[dict[str, Any]]:
    """List the most frequent confusions of readable videos."""
    names, counts = result.class_names, result.outcomes.confusion[:, :-1].copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:NUM_CONFUSIONS]
    return [
        {"true": names[row], "predicted": names[column], "videos": int(counts[row, column])}
        for row, column in zip(*np.unravel_index(order, counts.shape), strict=True)
        if counts[row, column]
    ]


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with whole_file(path) as file:
        csv.writer(file).writerows([header, *rows])
    return path


def finite(value: Any) -> Any:
    """Replace numbers that JSON lacks by None."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(map(finite, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
