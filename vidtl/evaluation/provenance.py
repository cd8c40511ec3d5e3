"""Provenance of an evaluation: the model and settings that decide its scores, and the folder that it owns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vidtl import __version__
from vidtl.annotations.records import Records, columns_sha256
from vidtl.config import ExperimentConfig
from vidtl.config.compare import resolved, settings_of
from vidtl.config.documents import read_json
from vidtl.data.protocols import Protocol
from vidtl.errors import UserError
from vidtl.evaluation.report import METRICS_FILE
from vidtl.runtime.launch import resolve_precision
from vidtl.training.checkpoint import Checkpoint

NAMED_ELSEWHERE = ("evaluation.protocol", "evaluation.averaged_weights")  # by folder, and fingerprint of the model


def evaluation_key(
    checkpoint: Checkpoint, records: Records, config: ExperimentConfig, protocol: Protocol, accelerator: Accelerator
) -> dict[str, Any]:
    """Collect everything that decides the scores to the last bit, which the number of processes does not."""
    return {
        "vidtl": __version__,
        "torch": str(torch.__version__),
        "device": accelerator.device.type,
        "precision": resolve_precision(config.training.precision),
        "model": checkpoint.fingerprint(),
        "data": data_fingerprint(records),
        "protocol": [protocol.name, protocol.num_clips, protocol.num_crops, protocol.fusion],
        "settings": {key: resolved(key, value) for key, value in settings_of(config, ["scores", "rounding"]).items()},
    }


def data_fingerprint(records: Records) -> str:
    """Compute the SHA-256 of the annotated videos: ids, paths, labels, segments and class names, in their order."""
    first = (str(records.multi_label), str(records.frame_rate), *records.classes.names)
    columns = (
        *(records.ids.data, records.ids.offsets, records.paths.data, records.paths.offsets),
        *(records.label_offsets, records.label_classes, records.segment_starts_s, records.segment_ends_s),
        records.segment_starts_s[:0] if records.lengths_s is None else records.lengths_s,
    )
    return columns_sha256(first, columns)


def folder_name(config: ExperimentConfig, protocol: Protocol, tokens: str = "") -> str:
    """Name split, protocol, and each choice that is not the default, such as `val-center-first-10`."""
    chosen = config.evaluation
    choices = {
        chosen.fusion.replace("_", "-"): chosen.fusion != "protocol",
        f"first-{chosen.max_videos}": chosen.max_videos > 0,
        "plain-weights": not chosen.averaged_weights,
        f"tokens-{tokens}": tokens != "",
    }
    return "-".join([config.data.eval_split, protocol.name, *(name for name, taken in choices.items() if taken)])


def origin_record(
    given: Path, step: int | None, averaged: bool, key: Mapping[str, Any], config: ExperimentConfig
) -> dict[str, Any]:
    """Describe for `metrics.json` the model of an `evaluation_key`, and the settings, with paths as given."""
    settings = {name: v for name, v in settings_of(config, ["scores"]).items() if name not in NAMED_ELSEWHERE}
    model = {"path": str(given), "step": step, "averaged_weights": averaged, "fingerprint": key["model"]}
    return {"model": model, "settings": {"training.precision": key["precision"], **settings}}


def check_same_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Raise a UserError for a folder with results of another model or setting, which names both of them."""
    file = folder / METRICS_FILE
    if not file.exists():
        return
    try:
        record = read_json(file)
        before, models = record["settings"], [record["model"], origin["model"]]
        names = [f"{model['path']} (step {model['step']}, {model['fingerprint'][:12]})" for model in models]
        now = origin["settings"].items()
        differing = [name for name, value in now if resolved(name, before[name]) != resolved(name, value)]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} does not name its model and settings; allowed: another --output_dir") from None
    if models[0]["fingerprint"] != models[1]["fingerprint"]:
        raise UserError(f"{folder} holds results of {names[0]}, not of {names[1]}; allowed: another --output_dir")
    for name in differing:
        values = f"{before[name]!r}, not {origin['settings'][name]!r}"
        raise UserError(f"{folder} holds results with {name} {values}; allowed: the same, or another --output_dir")
