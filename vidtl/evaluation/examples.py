"""Videos to look at first: the most confidently wrong and the hardest ones, with pictures of frames and maps.

`examples/examples.json` lists them for the page, which is thereby written from files alone. Axes: N videos, K classes.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidtl.annotations.records import Records
from vidtl.config import ExperimentConfig
from vidtl.data.dataset import ViewDataset
from vidtl.data.protocols import Protocol, get_protocol
from vidtl.errors import UserError
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.models.base import VideoModel
from vidtl.runtime.files import printable, whole_file
from vidtl.visualize.clip_maps import clip_maps, rgb_clip
from vidtl.visualize.map_figure import draw_frames, draw_maps

FOLDER, INDEX = "examples", "examples.json"

NUM_EACH = 4
"""Videos of either kind."""

NUM_BARS, MAX_TRUE_BARS = 5, 8
"""Classes shown per video, best first, and true classes beyond them."""

log = logging.getLogger(__name__)


def write_examples(result: EvaluationResult, folder: Path) -> list[int]:
    """List the videos in `folder/examples/examples.json`, without pictures; return their record numbers.

    Pictures of an earlier evaluation are removed.
    """
    remove_examples(folder)
    (folder / FOLDER).mkdir(exist_ok=True)
    wrong = confidently_wrong(result)
    chosen = {"wrong": wrong, "hard": hardest(result, wrong)}
    groups = {kind: [_example(result, number) for number in numbers] for kind, numbers in chosen.items()}
    with whole_file(folder / FOLDER / INDEX) as file:
        json.dump(groups, file, indent=1, allow_nan=False)
    return [number for numbers in chosen.values() for number in numbers]


def draw_examples(
    model: VideoModel, records: Records, config: ExperimentConfig, protocol: Protocol, numbers: list[int], folder: Path
) -> None:
    """Open the videos again and draw the center clip of each, in the middle of the frame, into `folder/examples/`.

    A video that can no longer be read has no picture; a model without maps has frames only.
    """
    center = replace(get_protocol("center"), short_side=protocol.short_side)
    dataset = ViewDataset(records, center, config.clip, config.data)
    for number in numbers:
        video, path = dataset[number], folder / FOLDER / picture_name(number)
        if video.pixels is None:
            log.warning("no picture of %s, which can no longer be read", printable(records.ids[number]))
            continue
        try:
            draw_maps(clip_maps(model, video.pixels, video.color).images, path)
        except UserError:  # neither TokenLearner nor a rollout
            draw_frames(rgb_clip(video.pixels, video.color)[1], path)


def remove_examples(folder: Path) -> None:
    """Remove the examples of an evaluation."""
    for path in (folder / FOLDER).glob("*"):
        if path.name == INDEX or path.suffix == ".webp":
            path.unlink()


def picture_name(number: int) -> str:
    """Name the picture of a record."""
    return f"{number:06d}.webp"


def confidently_wrong(result: EvaluationResult) -> list[int]:
    """Choose readable videos by the probability of a class that they do not have, largest first.

    Single label: the class is the model's answer. Multi-label: the best of the absent classes; a video that has all
    classes cannot be wrong in this way.
    """
    outcomes = result.outcomes
    absent_NK = ~outcomes.targets
    if not outcomes.multi_label:
        absent_NK = absent_NK & (outcomes.answers[:, None] == np.arange(len(result.class_names)))
    highest = np.where(absent_NK, outcomes.probabilities, -1.0).max(axis=1)
    return _first(np.flatnonzero(outcomes.readable & (highest >= 0)), -highest)


def hardest(result: EvaluationResult, left_out: Sequence[int]) -> list[int]:
    """Choose readable videos by the probability of their least probable true class, smallest first."""
    outcomes = result.outcomes
    lowest = np.where(outcomes.targets, outcomes.probabilities, 2.0).min(axis=1)
    candidates = np.flatnonzero(outcomes.readable & (lowest <= 1))
    return _first(np.setdiff1d(candidates, left_out), lowest)


def _first(candidates: NDArray[np.int64], order_N: NDArray[np.float64]) -> list[int]:
    """Return the first `NUM_EACH` candidates in rising order; of equal ones, those annotated first."""
    chosen: list[int] = candidates[np.argsort(order_N[candidates], kind="stable")][:NUM_EACH].tolist()
    return chosen


def _example(result: EvaluationResult, number: int) -> dict[str, Any]:
    outcomes = result.outcomes
    bars = [
        {
            "class": result.class_names[k],
            "probability": float(outcomes.probabilities[number, k]),
            "rank": rank,
            "true": bool(outcomes.targets[number, k]),
        }
        for rank, k in enumerate(np.argsort(-outcomes.scores[number], kind="stable").tolist(), start=1)
    ]
    shown = [*bars[:NUM_BARS], *[bar for bar in bars[NUM_BARS:] if bar["true"]][:MAX_TRUE_BARS]]
    return {"number": number, "id": result.ids[number], "path": result.paths[number], "answers": shown}
