"""ViViT directories of Hugging Face transformers (`VivitForVideoClassification`, `VivitModel`): the joint form.

Both naming schemes are read: that of saved files, and that of the modules of transformers 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.errors import UserError
from vidtl.models.embedding import Grid
from vidtl.models.weights.load import SourceWeights, read_json, read_state, rename
from vidtl.models.weights.settings import read_class_names
from vidtl.models.weights.transformers_image import TRANSFORMERS_NAMES

_NAMES = ((r"^vivit\.", ""), *TRANSFORMERS_NAMES)

# Settings with a fixed value here; a model trained with another would load and be wrong.
_REQUIRED: dict[str, tuple[object, ...]] = {
    "model_type": ("vivit",),
    "hidden_act": ("gelu_fast", "gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_eps": (1e-6,),
    "qkv_bias": (True,),
    "num_channels": (3,),
}


@dataclass(frozen=True, kw_only=True)
class HuggingFaceModel:
    """Contents of a directory."""

    model: ModelConfig
    clip: ClipConfig
    weights: SourceWeights


def read_huggingface(directory: Path) -> HuggingFaceModel:
    """Read settings, clip shape, class names and weights of a ViViT directory.

    Raises:
        UserError: a file is missing, or a setting is one that the ViViT of this library does not have.
    """
    path = directory / "config.json"
    config = read_json(path)
    for key, allowed in _REQUIRED.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{path}: {key} is {config[key]!r}; allowed: {', '.join(map(repr, allowed))}")
    model, clip = _read_settings(config, path)
    files = [directory / name for name in ("model.safetensors", "pytorch_model.bin")]
    file = next((file for file in files if file.is_file()), files[0])
    length, height, width = config["tubelet_size"]
    grid = Grid(clip.num_frames // length, clip.frame_size[0] // height, clip.frame_size[1] // width)
    names = read_class_names(config, str(path))
    weights = huggingface_weights(read_state(file), str(file), grid, names)
    return HuggingFaceModel(model=model, clip=clip, weights=weights)


def huggingface_weights(
    state: Mapping[str, Tensor], source: str, grid: Grid, class_names: Sequence[str] = ()
) -> SourceWeights:
    """Rename a state dict of transformers; its pooler, which precedes no classifier, is left out."""
    renamed = rename(state, _NAMES)
    unused = [name for name in renamed if name.startswith("pooler.")]
    kept = {name: tensor for name, tensor in renamed.items() if name not in unused}
    grids = {"encoder.positions.weight": grid}
    return SourceWeights(source=source, state=kept, grids=grids, class_names=class_names, unused=unused)


def _read_settings(config: dict[str, Any], path: Path) -> tuple[ModelConfig, ClipConfig]:
    try:
        side = config["image_size"]
        size = (side, side) if isinstance(side, int) else (side[0], side[1])
        model = ModelConfig(
            form="joint",
            activation="gelu_tanh",
            width=config["hidden_size"],
            depth=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            mlp_width=config["intermediate_size"],
            tubelet=tuple(config["tubelet_size"]),
            pooling="cls",
            dropout=config.get("hidden_dropout_prob", 0.0),
            attention_dropout=config.get("attention_probs_dropout_prob", 0.0),
            token_learner=TokenLearnerConfig(num_tokens=0),
        )
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]} is missing") from error
    clip = ClipConfig(num_frames=config.get("num_frames", 32), frame_size=size, short_side=max(256, *size))
    return model, clip
