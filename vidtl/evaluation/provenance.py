"""Which model and which settings an evaluation's figures come from, and the folder that is theirs alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidtl.config import ExperimentConfig
from vidtl.config.compare import EFFECTS, settings_of
from vidtl.data.protocols import Protocol
from vidtl.errors import UserError
from vidtl.evaluation.report import METRICS

NAMED_ELSEWHERE = ("evaluation.protocol", "evaluation.averaged_weights")
"""Settings that the folder's name and the model's fingerprint stand for."""


def folder_name(config: ExperimentConfig, protocol: Protocol) -> str:
    """Split, protocol, and each choice that is not the usual one, such as `val-center-first-10`."""
    chosen = config.evaluation
    choices = {
        "single-frame": chosen.single_frame,
        chosen.fusion.replace("_", "-"): chosen.fusion != "protocol",
        f"first-{chosen.max_videos}": chosen.max_videos > 0,
        "plain-weights": not chosen.averaged_weights,
    }
    return "-".join([config.data.eval_split, protocol.name, *(name for name, taken in choices.items() if taken)])


def origin_record(given: Path, step: int | None, averaged: bool, key: Mapping[str, Any]) -> dict[str, Any]:
    """What `metrics.json` says of the model and of the settings that decide the figures.

    Args:
        given: where the model was said to be.
        step: of a run's checkpoint.
        key: `evaluation_key`.
    """
    settings = {"training.precision": key["precision"], **_deciding(key["settings"])}
    model = {"path": str(given), "step": step, "averaged_weights": averaged, "fingerprint": key["model"]}
    return {"model": model, "settings": settings}


def check_same_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Refuse a folder that holds the results of another evaluation; no results are no difference.

    A setting that they lack came into being after they were written, and was what the default is now.

    Raises:
        UserError: names both models, or the setting that differs and both values, or results that do not tell.
    """
    file = folder / METRICS
    if not file.exists():
        return
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        before = {**_deciding(settings_of(ExperimentConfig())), **record["settings"]}
        models = [record["model"], origin["model"]]
        same_model = models[0]["fingerprint"] == models[1]["fingerprint"]
        names = [_model_name(model) for model in models]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{file} does not say which model it is of; allowed: another --output_dir, or to move it away"
        ) from None
    if not same_model:
        raise UserError(
            f"{folder} holds results of {names[0]}, and here it is {names[1]}; allowed: another --output_dir"
        )
    for name, value in origin["settings"].items():
        if before.get(name) != value:
            raise UserError(
                f"{folder} holds results with {name} {before.get(name)!r}, and here it is {value!r}; "
                "allowed: the same value, or another --output_dir"
            )


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in settings if "scores" in EFFECTS[key] and key not in NAMED_ELSEWHERE}


def _model_name(model: Mapping[str, Any]) -> str:
    step = "" if model["step"] is None else f"step {model['step']}, "
    weights = "averaged weights, " if model["averaged_weights"] else ""
    return f"{model['path']} ({step}{weights}{model['fingerprint'][:12]})"
