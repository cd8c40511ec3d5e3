"""Model directories: `config.json` (settings of the model and its clips, class names) and `model.safetensors`."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.load import EARLIER, Document, from_document
from vidtl.config.model import ARCHITECTURES
from vidtl.errors import UserError
from vidtl.models.base import CONFIG_FILE, WEIGHTS_FILE, VideoModel
from vidtl.models.embedding import Grid, PositionEmbedding
from vidtl.models.factory import build_model
from vidtl.models.weights.files import read_json, read_safetensors
from vidtl.models.weights.load import SourceWeights, load_weights


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
        if len(self.class_names) not in (0, self.num_outputs):
            allowed = f"{self.num_outputs}, one per class of the model"
            raise UserError(f"class_names has {len(self.class_names)} names; allowed: {allowed}")


def save_model_directory(model: VideoModel, directory: Path) -> None:
    """Write `config.json` and `model.safetensors` into `directory`, which is created if needed.

    Raises:
        UserError: the number of class names is neither 0 nor that of classes, or the model is not from `build_model`.
    """
    if not hasattr(model, "model_config"):
        raise UserError(f"this {type(model).__name__} has no settings to save; allowed: models of build_model")
    saved = SavedConfig(
        model=model.model_config,
        clip=model.clip_config,
        num_outputs=model.num_classes,
        class_names=tuple(model.class_names),
        multi_label=model.multi_label,
        position_grids={
            f"{name}.weight": module.grid
            for name, module in model.named_modules()
            if isinstance(module, PositionEmbedding)
        },
    )
    directory.mkdir(parents=True, exist_ok=True)
    config = {**asdict(saved), "model": _without_null(asdict(saved.model))}
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def load_model_directory(directory: Path, clip: ClipConfig | None = None) -> VideoModel:
    """Read a model, with its class names, from a model directory; no network is used.

    `clip` may have another number of frames or frame size than the saved one: learned positions are resized.

    Raises:
        UserError: a file is missing, unreadable or does not fit the other.
    """
    saved = read_model_config(directory)
    model = build_model(saved.model, clip or saved.clip, saved.num_outputs)
    load_weights(model, read_model_weights(directory, saved))
    model.class_names = saved.class_names
    model.multi_label = saved.multi_label
    return model


VideoModel.save_directory = staticmethod(save_model_directory)


def read_model_weights(directory: Path, saved: SavedConfig) -> SourceWeights:
    """Read the tensors of a model directory; `saved` has the grids of the positions."""
    path = directory / WEIGHTS_FILE
    grids = {name: Grid(*grid) for name, grid in saved.position_grids.items()}
    return SourceWeights(source=str(path), state=read_safetensors(path), grids=grids, class_names=saved.class_names)


def read_model_config(directory: Path) -> SavedConfig:
    """Read `config.json`; a UserError names file and key where it does not fit this version."""
    path = directory / CONFIG_FILE
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
