"""Files and terminal lines of one evaluation; every file is written whole or not at all.

Axes: N videos, K classes. Names and paths come from strangers' files, so text in CSV cells and terminal lines is
stripped of control characters, and cells that a spreadsheet would run as a formula start with an apostrophe.
"""

import csv
import json
import math
import os
import platform
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np

from vidtl import __version__
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.evaluation.metrics import (
    chance_levels,
    classes_without_positives,
    confusion_matrix,
    per_class_accuracy,
    per_class_average_precision,
)
from vidtl.visualize.confusion import draw_average_precision, draw_confusion

LIBRARIES = ("accelerate", "numpy", "torch", "torchmetrics")

NUM_TOP_LABELS = 5
"""Columns of best labels in `predictions.csv`, or fewer where there are fewer classes."""

SHOWN_NAMES = 8
"""Names in one terminal line; the files hold all."""


def write_report(result: EvaluationResult, folder: Path) -> list[Path]:
    """Write `metrics.json`, `predictions.csv`, `unreadable.csv` (if any) and a figure; to be called by one process.

    The figure is `confusion.png` for single-label data and `average_precision.png` for multi-label data.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "metrics.json", folder / "predictions.csv"]
    with _whole_file(files[0]) as file:
        json.dump(metrics_record(result), file, indent=2, allow_nan=False)
        file.write("\n")
    with _whole_file(files[1]) as file:
        _write_predictions(result, file)
    unreadable = folder / "unreadable.csv"
    if result.unreadable:
        with _whole_file(unreadable) as file:
            csv.writer(file).writerows([("id", "path", "reason"), *(map(cell_text, row) for row in result.unreadable)])
        files.append(unreadable)
    else:
        unreadable.unlink(missing_ok=True)  # of an earlier evaluation into the same folder
    return [*files, _draw(result, folder)]


def metrics_record(result: EvaluationResult) -> dict[str, Any]:
    """What `metrics.json` holds: numbers, null for those that do not exist, and names exactly as annotated."""
    single = not result.multi_label
    per_class = (per_class_accuracy if single else per_class_average_precision)(result.scores, result.targets)
    videos = result.targets.sum(axis=0)
    key = "accuracy" if single else "average_precision"
    return {
        "annotation": result.annotation,
        "protocol": result.protocol,
        "num_clips": result.num_clips,
        "num_crops": result.num_crops,
        "fusion": result.fusion,
        "multi_label": result.multi_label,
        "max_videos": result.max_videos,
        "num_classes": len(result.class_names),
        "num_annotated": result.num_annotated,
        "num_scored": result.num_scored,
        "num_unreadable": len(result.unreadable),
        "metrics": _json_numbers(result.metrics),
        "metrics_readable": _json_numbers(result.metrics_readable),
        "chance": _json_numbers(chance_levels(result.targets, result.multi_label)),
        "classes_without_positives": classes_without_positives(result.targets, result.class_names),
        "per_class": [
            {"class": name, "videos": int(count), key: _json_number(value)}
            for name, count, value in zip(result.class_names, videos, per_class, strict=True)
        ],
        "unreadable": [row._asdict() for row in result.unreadable],
        "versions": {"vidtl": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    }


def summary_lines(result: EvaluationResult) -> list[str]:
    """The evaluation as lines for a terminal: what was asked, what could be read, each metric beside its chance."""
    chance = chance_levels(result.targets, result.multi_label)
    lines = [
        plain_text(f"{result.annotation}: {len(result.class_names)} classes"),
        f"protocol {result.protocol}: {result.num_clips} clips x {result.num_crops} crops, fusion {result.fusion}",
        f"{result.num_annotated} videos annotated, {result.num_scored} scored, {len(result.unreadable)} unreadable",
    ]
    if result.max_videos:
        lines.append(f"a quick look: at most the first {result.max_videos} videos of the annotation")
    header = f"{'metric':<24}{'value':>9}"
    header += f"{'readable':>11}" if result.unreadable else ""
    lines.append(f"{header}{'chance':>9}")
    for name, value in result.metrics.items():
        if name == "classes_without_positives":
            continue
        line = f"{name:<24}{_percent(value):>9}"
        line += f"{_percent(result.metrics_readable[name]):>11}" if result.unreadable else ""
        lines.append(f"{line}{_percent(chance[name]):>9}{_remark(name, chance)}")
    return [*lines, *_exceptions(result)]


def _remark(name: str, chance: Mapping[str, float]) -> str:
    if name == "top1":
        return f"  (largest class {_percent(chance['largest_class'])})"
    if name == "mAP":
        return f"  (equal scores {_percent(chance['positive_rate'])})"
    return ""


def _exceptions(result: EvaluationResult) -> list[str]:
    """Lines about everything the numbers do not show by themselves."""
    lines = []
    absent = classes_without_positives(result.targets, result.class_names)
    if absent:
        names = ", ".join(plain_text(name) for name in absent[:SHOWN_NAMES])
        more = f" and {len(absent) - SHOWN_NAMES} more" if len(absent) > SHOWN_NAMES else ""
        official = " (mAP_charades needs all classes)" if result.multi_label else ""
        lines.append(f"classes without videos, left out of the means{official}: {names}{more}")
    if result.unreadable:
        lines.append("unreadable videos count as wrong; 'readable' leaves them out:")
        lines += [
            f"  {plain_text(video.path)}: {plain_text(video.reason)}" for video in result.unreadable[:SHOWN_NAMES]
        ]
        if len(result.unreadable) > SHOWN_NAMES:
            lines.append(f"  and {len(result.unreadable) - SHOWN_NAMES} more, listed in unreadable.csv")
    return lines


def plain_text(text: str) -> str:
    """Text without control characters and line separators, which could move a cursor or break a row."""
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Zl", "Zp"))


def cell_text(text: str) -> str:
    """`plain_text` that no spreadsheet takes for a formula: an apostrophe goes before `=`, `+`, `-` and `@`.

    A text that starts with an apostrophe gets a second one, so that taking one away restores any text.
    """
    plain = plain_text(text)
    return f"'{plain}" if plain.lstrip()[:1] in ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'") else plain


def _write_predictions(result: EvaluationResult, file: IO[str]) -> None:
    """One row per annotated video. Scores are written exactly; rows of unreadable videos have none."""
    names = [cell_text(name) for name in result.class_names]
    num_top = min(NUM_TOP_LABELS, len(names))
    writer = csv.writer(file)
    top = [f"top_{place}" for place in range(1, num_top + 1)]
    writer.writerow(
        ["id", "path", "true_labels", "status", *top, *(f"score: {plain_text(n)}" for n in result.class_names)]
    )
    best = np.argsort(-result.scores, axis=1, kind="stable")[:, :num_top]
    unreadable = {video.id for video in result.unreadable}
    for i, video in enumerate(result.ids):
        labels = [plain_text(result.class_names[k]) for k in np.flatnonzero(result.targets[i])]
        row = [cell_text(video), cell_text(result.paths[i]), cell_text("|".join(labels))]
        if video in unreadable:
            writer.writerow([*row, "unreadable", *[""] * (num_top + len(names))])
        else:
            writer.writerow([*row, "scored", *(names[k] for k in best[i]), *map(repr, result.scores[i].tolist())])


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


def _percent(value: float) -> str:
    return "none" if math.isnan(value) else f"{100 * value:.2f}%"


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _json_number(value) for name, value in values.items()}


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[str]]:
    """A UTF-8 file that takes `path`'s place once it is complete; lone surrogates are written as escapes."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
