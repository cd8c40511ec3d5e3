"""`report.html`: filled in from what the evaluation found, its files and its pictures.

Everything is inside the file. The policy in its head allows exactly the style and the script that are ours, by their
SHA-256, and pictures written into the text; so a name that slipped through the escaping could still run nothing.
"""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidtl.evaluation.html.names import visible
from vidtl.evaluation.html.pictures import remove_pictures
from vidtl.evaluation.html.reliability import reliability
from vidtl.evaluation.html.rows import class_rows, confusion_rows, matrix_data, metric_rows, percent
from vidtl.evaluation.html.videos import picture_note, video_groups
from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.classification import confusion_matrix
from vidtl.runtime.files import whole_file

PAGE = "report.html"

MAX_UNREADABLE = 2000
"""Unreadable videos listed; `unreadable.csv` has all."""

WIDE_MATRIX = 24
"""Matrices of more classes take the whole width of the page."""

FUSIONS = {"mean_logits": "mean of the logits", "mean_probabilities": "mean of the probabilities", "max": "maximum"}


def write_page(result: EvaluationResult, record: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html` into an evaluation's folder, with the pictures that `draw_pictures` left there.

    Args:
        record: what `metrics.json` holds (`vidtl.evaluation.report.metrics_record`).
    """
    text = render_page(result, record, folder)
    with whole_file(folder / PAGE) as file:
        file.write(text)
    return folder / PAGE


def remove_page(folder: Path) -> None:
    """Remove the page of an earlier evaluation and its pictures, before other metrics take the place of its own."""
    (folder / PAGE).unlink(missing_ok=True)
    remove_pictures(folder)


def render_page(result: EvaluationResult, record: Mapping[str, Any], folder: Path) -> str:
    """The page as text; see `write_page`."""
    style, script = _source("page.css"), _source("page.js")
    groups = video_groups(result, folder)
    unreadable = record["unreadable"][:MAX_UNREADABLE]
    calibration = reliability(record)
    metrics = metric_rows(record)
    context = {
        "policy": _policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
        "record": record,
        "heading": _heading(result),
        "views": _views(result),
        "fusion": FUSIONS.get(result.fusion, result.fusion),
        "parts": _parts(result, bool(calibration), bool(unreadable)),
        "metrics": metrics,
        "has_intervals": any(row.interval for row in metrics),
        "interval_note": _interval_note(record),
        "baseline_note": _baseline_note(record),
        "classes": class_rows(result, record),
        "calibration": calibration,
        "groups": groups,
        "picture_note": picture_note(groups),
        "unreadable": unreadable,
        "facts": _facts(result, record),
    }
    return _environment().get_template("page.html.j2").render(context | _confusions(result))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vidtl.evaluation.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "whole": lambda value: f"{value:,}", "scaled": _scaled}
    return environment


def _source(name: str) -> str:
    return files("vidtl.evaluation.html").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _scaled(value: float) -> str:
    """A share as a coordinate in 0..100."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}"


def _heading(result: EvaluationResult) -> str:
    path = PurePath(result.annotation)
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _parts(result: EvaluationResult, calibration: bool, unreadable: bool) -> list[tuple[str, str]]:
    parts = {
        "Result": True,
        "Classes": True,
        "Confusions": not result.multi_label,
        "Calibration": calibration,
        "Videos": True,
        "Unreadable": unreadable,
        "Account": True,
    }
    return [(name.lower(), name) for name, shown in parts.items() if shown]


def _confusions(result: EvaluationResult) -> dict[str, Any]:
    if result.multi_label:
        return {}
    counts = confusion_matrix(result.scores, result.targets)
    zoom = "Double-click or + and − zoom, dragging moves, arrow keys walk." if len(result.class_names) > 4 else ""
    return {
        "confusions": confusion_rows(counts, result.class_names),
        "is_wide": len(result.class_names) > WIDE_MATRIX,
        "matrix": matrix_data(counts, result.class_names),
        "matrix_hint": f"Point at a cell for its names and numbers. {zoom}",
    }


def _views(result: EvaluationResult) -> str:
    clips = f"{result.num_clips} clip{'s' * (result.num_clips > 1)}"
    crops = f"{result.num_crops} crop{'s' * (result.num_crops > 1)}"
    return f"{clips} × {crops}"


def _interval_note(record: Mapping[str, Any]) -> str:
    methods = dict.fromkeys(interval["method"] for interval in record.get("intervals", {}).values())
    return " or ".join(method.replace("wilson", "Wilson's") for method in methods)


def _baseline_note(record: Mapping[str, Any]) -> str:
    chance = record["chance"]
    if "largest_class" in chance:
        return f"; always naming the largest class would be right in {percent(chance['largest_class'])} %"
    if chance.get("positive_rate") is not None:
        return f"; scores that are all equal would have a mAP of {percent(chance['positive_rate'])} %"
    return ""


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    """A line for each section: what is longer than a name may be would not be shown whole."""
    sections: dict[str, list[str]] = {}
    for key, value in record.get("settings", {}).items():
        section, _, name = key.partition(".")
        sections.setdefault(f"Settings of {section}", []).append(f"{name} {value}")
    return {section: ", ".join(values) for section, values in sections.items()}


def _facts(result: EvaluationResult, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = record.get("model", {})
    step = model.get("step")
    facts = {
        "Model": model.get("path", ""),
        "Step": "" if step is None else f"{step:,}",
        "Weights": "averaged" if model.get("averaged_weights") else "",
        "Fingerprint of the model": model.get("fingerprint", ""),
        "Annotation": result.annotation,
        "Videos in": result.root,
        "Protocol": result.protocol,
        "Views of a video": _views(result),
        "Fusion of the views": FUSIONS.get(result.fusion, result.fusion),
        "Labels": "several per video" if result.multi_label else "one per video",
        "Classes": f"{len(result.class_names):,}",
        "Classes without videos": f"{len(record['classes_without_positives']):,}",
        "Videos annotated": f"{result.num_annotated:,}",
        "Videos scored": f"{result.num_scored:,}",
        "Videos unreadable": f"{len(result.unreadable):,}, counted as wrong" if result.unreadable else "none",
        "Limit": f"the first {result.max_videos:,} videos" if result.max_videos else "",
        **_settings(record),
        "Versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    }
    return [(name, value) for name, value in facts.items() if value]
