"""`report.html`: an evaluation as one file that needs no network, with pictures of the videos to look at first.

The page is written from the files of its folder alone; `examples/examples.json` lists the most confidently wrong and
the hardest videos. The policy in its head allows only the style and the script of the template, by SHA-256, and
pictures, so that a name that is not escaped could still run nothing. Axes: N videos, K classes.
"""

import json
import logging
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError
from markupsafe import Markup
from numpy.typing import NDArray

from vidtl.annotations.records import Records
from vidtl.config import ExperimentConfig
from vidtl.config.documents import read_json
from vidtl.data.dataset import ViewDataset
from vidtl.data.protocols import Protocol, get_protocol
from vidtl.errors import UserError
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.evaluation.report import METRICS_FILE, percent, views_text
from vidtl.metrics import METRICS
from vidtl.models.base import VideoModel
from vidtl.runtime.files import inside, printable, whole_file
from vidtl.visualize.map_figure import draw_frames, draw_maps
from vidtl.visualize.token_maps import clip_maps, rgb_clip

PAGE, EXAMPLES = "report.html", "examples/examples.json"

MAX_UNREADABLE, MAX_MATRIX, MAX_NAME = 2000, 40, 300
"""Unreadable videos listed, classes of an embedded confusion matrix (other files have all), characters of a name."""

NUM_EACH, NUM_BARS, MAX_TRUE_BARS = 4, 5, 8  # examples of either kind, best classes of each, and further true ones

_log = logging.getLogger(__name__)


def write_page(folder: Path) -> Path:
    """Write `report.html` into the folder of an evaluation; UserError where its files are missing."""
    path = folder / METRICS_FILE
    try:
        record = read_json(path)
        text = _environment().get_template("page.html.j2").render(_context(record, folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, TemplateError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path} cannot be read as the metrics of an evaluation: {reason}") from None
    with whole_file(folder / PAGE) as file:
        file.write(text)
    return folder / PAGE


def remove_page(folder: Path) -> None:
    """Remove the page and the examples of an earlier evaluation, before its other files are replaced."""
    for path in (folder / PAGE, folder / EXAMPLES, *inside(folder / EXAMPLES, folder).parent.glob("*.webp")):
        path.unlink(missing_ok=True)


def write_examples(result: EvaluationResult, folder: Path) -> list[int]:
    """Replace the page of an earlier evaluation by a list of examples without pictures; return their record numbers."""
    remove_page(folder)
    (folder / EXAMPLES).parent.mkdir(exist_ok=True)
    wrong = confidently_wrong(result)
    chosen = {"wrong": wrong, "hard": hardest(result, wrong)}
    groups = {kind: [_example(result, number) for number in numbers] for kind, numbers in chosen.items()}
    with whole_file(folder / EXAMPLES) as file:
        json.dump(groups, file, indent=1, allow_nan=False)
    return [number for numbers in chosen.values() for number in numbers]


def draw_examples(
    model: VideoModel, records: Records, config: ExperimentConfig, protocol: Protocol, numbers: list[int], folder: Path
) -> None:
    """Draw the center clip of each video, with maps where the model has some, into `folder/examples/`."""
    center = replace(get_protocol("center"), short_side=protocol.short_side)
    dataset = ViewDataset(records, center, config.clip, config.data, numbers)
    for video in dataset.__getitems__(numbers):
        path = _picture(folder, video.index)
        if video.pixels is None:
            _log.warning("no picture of %s, which can no longer be read", records.ids[video.index])
            continue
        try:
            draw_maps(clip_maps(model, video.pixels, video.color).images, path)
        except UserError:  # neither TokenLearner nor a rollout
            draw_frames([rgb_clip(video.pixels, video.color)[1]], path)


def confidently_wrong(result: EvaluationResult) -> list[int]:
    """Choose readable videos by the highest probability of a wrong answer, with several labels of an absent class."""
    outcomes = result.outcomes
    is_best_NK = outcomes.answers[:, None] == np.arange(len(result.class_names))
    absent_NK = ~outcomes.targets & (is_best_NK | outcomes.multi_label)
    highest = np.where(absent_NK, outcomes.probabilities, -1.0).max(axis=1)
    return _first(np.flatnonzero(outcomes.readable & (highest >= 0)), -highest)


def hardest(result: EvaluationResult, excluded: Sequence[int]) -> list[int]:
    """Choose readable videos by the probability of their least probable true class, smallest first."""
    outcomes = result.outcomes
    lowest = np.where(outcomes.targets, outcomes.probabilities, 2.0).min(axis=1)
    candidates = np.flatnonzero(outcomes.readable & (lowest <= 1))
    return _first(np.setdiff1d(candidates, excluded), lowest)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vidtl.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value, MAX_NAME) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "digest": _digest}
    return environment


def _context(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    wide = record["num_classes"] > MAX_MATRIX
    figures = {name: _data_uri(folder / name) for name in ("reliability.png", "average_precision.png")}
    return {
        "record": record,
        "metrics": METRICS,
        "figures": figures | {"confusion.png": "" if wide else _data_uri(folder / "confusion.png")},
        "groups": _examples(folder),
        "unreadable": record["unreadable"][:MAX_UNREADABLE],
        "facts": _facts(record),
    }


def _digest(text: str) -> str:
    """Hash a style or script as a content security policy names it."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _data_uri(path: Path) -> Markup:
    """Encode a picture for an `img` element; empty where the file is missing."""
    content = path.is_file() and f"data:image/{path.suffix[1:]};base64,{b64encode(path.read_bytes()).decode()}"
    return Markup(content or "")


def _examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    if not (folder / EXAMPLES).is_file():
        return {}
    groups: dict[str, list[dict[str, Any]]] = read_json(folder / EXAMPLES)
    for group in groups.values():
        for example in group:
            example["picture"] = _data_uri(_picture(folder, example["number"]))
    return groups


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    model = record.get("model", {})
    facts = {
        "Model": model.get("path"),
        "Step": model.get("step"),
        "Averaged weights": "yes" if model.get("averaged_weights") else None,
        "Fingerprint of the model": model.get("fingerprint"),
        "Annotation": record["annotation"],
        "Videos in": record["root"],
        "Protocol": f"{record['protocol']}: {views_text(record['num_clips'], record['num_crops'])}",
        "Fusion of the views": record["fusion"],
        **record.get("settings", {}),
        **{f"Version of {name}": version for name, version in record["versions"].items()},
    }
    return {name: value for name, value in facts.items() if value is not None}


def _picture(folder: Path, number: int) -> Path:
    return (folder / EXAMPLES).with_name(f"{number:06d}.webp")


def _first(candidates: NDArray[np.int64], order_N: NDArray[np.float64]) -> list[int]:
    """Return the first `NUM_EACH` candidates in rising order; of equal ones, those annotated first."""
    return list(candidates[np.argsort(order_N[candidates], kind="stable")][:NUM_EACH].tolist())


def _example(result: EvaluationResult, number: int) -> dict[str, Any]:
    outcomes = result.outcomes
    order = np.argsort(-outcomes.scores[number], kind="stable").tolist()
    chances, labels = outcomes.probabilities[number].tolist(), outcomes.targets[number].tolist()
    bars = [
        {"class": result.class_names[k], "probability": chances[k], "rank": rank, "true": labels[k]}
        for rank, k in enumerate(order, start=1)
    ]
    shown = [*bars[:NUM_BARS], *[bar for bar in bars[NUM_BARS:] if bar["true"]][:MAX_TRUE_BARS]]
    return {"number": number, "id": result.ids[number], "path": result.paths[number], "answers": shown}
