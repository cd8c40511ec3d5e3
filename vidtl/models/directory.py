"""Model directories: `config.json` (settings of the model and its clips, class names) and `model.safetensors`."""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.checks import require
from vidtl.config.documents import read_json
from vidtl.config.load import EARLIER, Document, from_document
from vidtl.config.model import ARCHITECTURES, resolve_model
from vidtl.errors import UserError
from vidtl.models.base import CONFIG_FILE, WEIGHTS_FILE, VideoModel
from vidtl.models.embedding import Grid, PositionEmbedding
from vidtl.models.factory import build_model
from vidtl.models.weights.files import read_safetensors
from vidtl.models.weights.load import SourceWeights, compare, load_weights
from vidtl.runtime.files import replacing, whole_file

_NEXT_CONFIG = f"{CONFIG_FILE}.next"
_FIXED_BYTES = 256 << 20
"""Room for tables that a model computes, beyond the size of its weights."""


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """`config.json` of a model directory."""

    model: ModelConfig
    clip: ClipConfig
    num_outputs: int
    """Number of classes; huggingface_hub would pass on a key `num_classes`, an argument of models."""
    class_names: tuple[str, ...] = ()
    multi_label: bool | None = None
    """None where unknown, as in converted weights."""
    position_grids: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Tokens along time, height and width of each position embedding, by parameter name."""

    def __post_init__(self) -> None:
        require(self.num_outputs >= 1, "num_outputs", self.num_outputs, "1 or more")
        for name, grid in self.position_grids.items():
            require(min(grid) >= 1, f"position_grids.{name}", grid, "three values of 1 or more")
        count, allowed = len(self.class_names), f"{self.num_outputs}, one per class of the model"
        require(count in (0, self.num_outputs), "number of class_names", count, allowed)


def save_model_directory(model: VideoModel, directory: Path) -> None:
    """Write `config.json` and `model.safetensors` into `directory`, which is created if needed.

    An earlier model there stays until this one is complete, whenever the process ends: beside weights of the same time,
    `config.json.next` is valid until it is renamed. UserError: wrong `class_names`, or a model not from `build_model`.
    """
    if not hasattr(model, "model_config"):
        raise UserError(f"this {type(model).__name__} has no settings to save; allowed: models of build_model")
    grids = {f"{name}.weight": each.grid for name, each in model.named_modules() if isinstance(each, PositionEmbedding)}
    saved = SavedConfig(
        model=model.model_config,
        clip=model.clip_config,
        num_outputs=model.num_classes,
        class_names=tuple(model.class_names),
        multi_label=model.multi_label,
        position_grids={**grids},
    )
    directory.mkdir(parents=True, exist_ok=True)
    config = {**asdict(saved), "model": _without_null(asdict(saved.model))}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(directory / WEIGHTS_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
        with whole_file(directory / _NEXT_CONFIG) as file:
            file.write(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        now = time.time_ns()
        for path in (temporary, directory / _NEXT_CONFIG):
            os.utime(path, ns=(now, now))
    (directory / _NEXT_CONFIG).replace(directory / CONFIG_FILE)


def load_model_directory(directory: Path, clip: ClipConfig | None = None) -> VideoModel:
    """Read a model directory without network; another `clip` resizes positions. UserError: files missing or unfit."""
    saved, weights = read_model(directory)
    model = build_model(saved.model, clip or saved.clip, saved.num_outputs)
    load_weights(model, weights)
    model.class_names = saved.class_names
    model.multi_label = saved.multi_label
    return model


VideoModel.save_directory = staticmethod(save_model_directory)


def read_model(directory: Path) -> tuple[SavedConfig, SourceWeights]:
    """Read settings and tensors, again if another model replaces them meanwhile; UserError where they do not fit."""
    path = directory / WEIGHTS_FILE
    while True:
        before, failure = _times(directory), None
        try:
            saved, state = read_model_config(directory), read_safetensors(path)
        except (OSError, UserError) as error:
            failure = error
        if _times(directory) == before:
            break
    if failure:
        raise failure
    grids = {name: Grid(*grid) for name, grid in saved.position_grids.items()}
    weights = SourceWeights(source=str(path), state=state, grids=grids, class_names=saved.class_names)
    _require_fit(saved, weights)
    return saved, weights


def _times(directory: Path) -> list[int]:
    """Return when the files were written, which is unique: inodes are used again."""
    with suppress(OSError):
        return [(directory / name).stat().st_mtime_ns for name in (WEIGHTS_FILE, CONFIG_FILE)]
    return []


def _config_file(directory: Path) -> Path:
    """Find the settings of the weights, which a killed writer has not yet renamed."""
    with suppress(OSError):
        if (directory / _NEXT_CONFIG).stat().st_mtime_ns == (directory / WEIGHTS_FILE).stat().st_mtime_ns:
            return directory / _NEXT_CONFIG
    return directory / CONFIG_FILE


def _require_fit(saved: SavedConfig, weights: SourceWeights) -> None:
    """Compare the saved model, built without memory, with its tensors: a file of any origin may ask for any size."""
    settings, most = resolve_model(saved.model), len(weights.state)
    for name in ("depth", "temporal_depth"):
        depth = getattr(settings, name) or 0
        require(depth <= most, f"{weights.source}: model.{name}", depth, f"at most {most}, the number of tensors")
    try:
        with torch.device("meta"):
            model = build_model(saved.model, saved.clip, saved.num_outputs)
    except (RuntimeError, TypeError) as error:  # sizes beyond 64 bits
        reason = str(error).splitlines()[0]
        raise UserError(f"{weights.source} does not fit {CONFIG_FILE}, whose model cannot be built: {reason}") from None
    compare(model, weights).check()
    tables = sum(buffer.nbytes for buffer in model.buffers())  # fixed positions are not in the file
    held = sum(tensor.nbytes for tensor in weights.state.values())
    require(tables <= held + _FIXED_BYTES, f"{weights.source}: bytes of fixed tables", tables, f"{held + _FIXED_BYTES}")


def read_model_config(directory: Path) -> SavedConfig:
    """Read `config.json`; a UserError names file and key where it does not fit this version."""
    path = _config_file(directory)
    content = read_json(path)
    sections = content.get("model")
    if "model_type" in content:
        raise UserError(f"{path} is that of a model of transformers, which tools/convert_weights.py converts")
    if isinstance(sections, dict) and not ARCHITECTURES.keys().isdisjoint(sections):
        raise UserError(f"{path} was written by an older version of vidtl; allowed: model directories of this version")
    if isinstance(sections, dict) and sections.get("architecture") == "vivit":
        content["model"] = {**EARLIER, **sections}
    return from_document(SavedConfig, Document(content, str(path)))


def _without_null(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _without_null(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in kept.items() if value not in (None, {})}
