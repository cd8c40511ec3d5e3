"""Features of videos or windows, in files: the input of a model's classifier, or its tokens.

    features.json                everything that decides a byte; kind, type and shape of the features; class names
    features-00000.safetensors   `features` [rows, *shape], NaN for unreadable videos; and so on
    index.csv                    row, path, start_s, end_s, labels (JSON), reason; written last

A feature is the score of a model whose output are its features: the mean over the views of a protocol, in the fixed
batches of an evaluation. A file holds whole batches, so neither workers nor interruptions change a byte.
"""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from vidtl.annotations.records import ClassNames, Records
from vidtl.config import ExperimentConfig
from vidtl.config.compare import plain
from vidtl.config.documents import read_json
from vidtl.data.protocols import Protocol
from vidtl.data.windows import Windows
from vidtl.errors import UserError
from vidtl.evaluation.predict import predict_records
from vidtl.evaluation.scoring import fixed_batches
from vidtl.models import VideoModel
from vidtl.models.base import evaluation_mode
from vidtl.runtime.files import replacing, whole_file
from vidtl.runtime.progress import Progress

Row = dict[str, Any]
COLUMNS = "path", "start_s", "end_s", "labels", "reason"  # the labels are JSON; no reason: readable
FILE_ROWS, FILE_BYTES = 64, 64 << 20  # at most, unless a batch has more


class FeatureModel(nn.Module):
    """A model whose output are its features, `[B, D]`, or its flattened tokens."""

    def __init__(self, model: VideoModel, kind: str) -> None:
        super().__init__()
        self.model = model
        self.features: Any = getattr(model, "forward_tokens" if kind == "tokens" else "forward_features", None)
        if not self.features:
            raise UserError(f"features are {kind!r}, which a {type(model).__name__} lacks; allowed: 'pooled'")

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        return self.features(input_BTCHW).flatten(1)  # type: ignore[no-any-return]


def extract(
    model: VideoModel, records: Records, config: ExperimentConfig, protocol: Protocol, accelerator: Accelerator,
    folder: Path, key: dict[str, Any], progress: Progress, windows: Windows | None = None,
) -> int:  # fmt: skip
    """Write the features of videos, or of `windows` with these `records`, and return the number of unreadable ones.

    Files of an earlier call are kept, except for those with an unreadable video. `key` is that of an evaluation, with
    `features` (`pooled` or `tokens`) and `dtype` (`float16` or `float32`). UserError for a folder of another key, one
    that cannot be written, a value beyond float16, or as of `Scorer`.
    """
    network, names = FeatureModel(model, key["features"]), records.classes.names
    with evaluation_mode(network), torch.inference_mode():
        shape = network.features(torch.zeros(1, *model.clip_shape, device=accelerator.device)).shape[1:]
    classes = {"class_names": names, "multi_label": records.multi_label}
    _claim(folder / "features.json", plain({**key, "shape": shape, **classes}))
    most = min(FILE_ROWS, FILE_BYTES // (shape.numel() * np.dtype(key["dtype"]).itemsize))
    batch = max(1, config.evaluation.batch_size // (protocol.num_clips * protocol.num_crops))
    parts = enumerate(fixed_batches(len(records), 1, max(1, most // batch) * batch))
    files = {folder / f"features-{number:05d}.safetensors": part for number, part in parts}
    due = {file: part for file, part in files.items() if not file.exists() or any(row["reason"] for row in _rows(file))}
    numbers = [number for part in due.values() for number in part]
    outputs = ClassNames(tuple(map(str, range(shape.numel()))))
    selected = replace(records.select(numbers), classes=outputs, multi_label=True)
    config = replace(config, evaluation=replace(config.evaluation, fusion="mean_logits"))
    known = windows.failures if windows else {}
    failures = {place: known[number] for place, number in enumerate(numbers) if number in known}
    predictions = predict_records(network, selected, config, protocol, accelerator, failures)
    done = len(records) - len(numbers)
    with progress.task("extracting", "rows", len(records), done) as task:
        for file, part in due.items():
            values, rows = np.full((len(part), shape.numel()), np.nan), list[Row]()
            for number, found in zip(part, predictions, strict=False):  # in this order it takes no prediction too many
                part_s = records.segment_starts_s[number], records.segment_ends_s[number]
                span_s = np.minimum(part_s, found.duration_s) if windows is None else windows.spans_s[number]
                labels = json.dumps([names[k] for k in records.labels(number, *part_s)])
                cells = str(found.path), *span_s.round(6).tolist(), labels, found.reason
                values[len(rows)] = np.nan if found.scores is None else found.scores
                rows.append(dict(zip(COLUMNS, cells, strict=True)))
                task.update(done := done + 1)
            if (largest := np.abs(values).max(where=~np.isnan(values), initial=0)) > np.finfo(key["dtype"]).max:
                raise UserError(f"{file}: features reach {largest:g}; allowed: a wider type than {key['dtype']}")
            with replacing(file) as temporary:
                features = {"features": values.reshape(-1, *shape).astype(key["dtype"])}
                save_file(features, temporary, {"rows": json.dumps(rows)})
    rows = [row for file in files for row in _rows(file)]
    with whole_file(folder / "index.csv") as text:
        csv.writer(text).writerows([["row", *COLUMNS], *([i, *row.values()] for i, row in enumerate(rows))])
    return sum(bool(row["reason"]) for row in rows)


def load_features(folder: str | Path) -> tuple[NDArray[Any], list[Row], dict[str, Any]]:
    """Read features [rows, *shape], NaN for unreadable videos, rows and description; UserError if not all are there."""
    if not (Path(folder) / "index.csv").is_file():
        raise UserError(f"{folder} has no index.csv; allowed: a folder of features.py, which has finished")
    files = sorted(Path(folder).glob("features-*.safetensors"))
    rows = [row for file in files for row in _rows(file)]
    values = np.concatenate([load_file(file)["features"] for file in files])
    return values, rows, read_json(Path(folder) / "features.json")


def _claim(file: Path, key: dict[str, Any]) -> None:
    """Write the description of a folder, or compare it with the one there."""
    before = read_json(file) if file.exists() else key
    for name in [name for name in key if before.get(name) != key[name]]:
        values = f"{str(before.get(name))[:60]!r}, not {str(key[name])[:60]!r}"
        raise UserError(f"{file.parent} holds features with {name} {values}; allowed: the same, or another folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as text:
        json.dump(key, text, indent=2)


def _rows(file: Path) -> list[Row]:
    try:
        with safe_open(file, "numpy") as content:
            return json.loads(content.metadata()["rows"])  # type: ignore[no-any-return]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no readable file of features: {error}") from error
