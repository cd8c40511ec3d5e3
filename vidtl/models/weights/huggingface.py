"""ViViT directories of Hugging Face transformers (`VivitForVideoClassification`, `VivitModel`): the joint form.

Both naming schemes are read: that of saved files, and that of the modules of transformers 5.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.errors import UserError
from vidtl.models.position import Grid
from vidtl.models.weights.files import read_json, read_state
from vidtl.models.weights.report import SourceWeights

_BLOCK = r"(?:encoder\.layer|layers)\.(\d+)\."
_NAMES = [
    (r"embeddings\.cls_token", "encoder.cls"),
    (r"embeddings\.position_embeddings", "encoder.positions.weight"),
    (r"embeddings\.patch_embeddings\.projection", "embed.proj"),
    (_BLOCK + r"layernorm_before", r"encoder.blocks.\1.norm1"),
    (_BLOCK + r"layernorm_after", r"encoder.blocks.\1.norm2"),
    (_BLOCK + r"attention\.(?:attention\.query|q_proj)", r"encoder.blocks.\1.attn.q"),
    (_BLOCK + r"attention\.(?:attention\.key|k_proj)", r"encoder.blocks.\1.attn.k"),
    (_BLOCK + r"attention\.(?:attention\.value|v_proj)", r"encoder.blocks.\1.attn.v"),
    (_BLOCK + r"attention\.(?:output\.dense|o_proj)", r"encoder.blocks.\1.attn.proj"),
    (_BLOCK + r"(?:intermediate\.dense|mlp\.fc1)", r"encoder.blocks.\1.mlp.fc1"),
    (_BLOCK + r"(?:output\.dense|mlp\.fc2)", r"encoder.blocks.\1.mlp.fc2"),
    (r"layernorm", "encoder.norm"),
    (r"classifier", "head"),
]

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
    class_names: tuple[str, ...]
    weights: SourceWeights


def read_huggingface(directory: Path) -> HuggingFaceModel:
    """Read settings, clip shape, class names and weights of a ViViT directory.

    Raises:
        UserError: a file is missing, or a setting is one that this library's ViViT does not have.
    """
    path = directory / "config.json"
    config = read_json(path)
    for key, allowed in _REQUIRED.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{path}: {key} is {config[key]!r}; allowed: {', '.join(map(repr, allowed))}")
    model, clip = _read_settings(config, path)
    files = [directory / name for name in ("model.safetensors", "pytorch_model.bin")]
    weights = next((file for file in files if file.is_file()), files[0])
    assert model.tubelet is not None
    length, height, width = model.tubelet
    grid = Grid(clip.num_frames // length, clip.frame_size[0] // height, clip.frame_size[1] // width)
    return HuggingFaceModel(
        model=model,
        clip=clip,
        class_names=_class_names(config),
        weights=huggingface_weights(read_state(weights), str(weights), grid),
    )


def huggingface_weights(state: dict[str, Tensor], source: str, grid: Grid) -> SourceWeights:
    """Rename a state dict of transformers; its pooler has no place in a classifier."""
    renamed: dict[str, Tensor] = {}
    unused, unexpected = [], []
    for name, tensor in state.items():
        target = _rename(name)
        if re.fullmatch(r"(vivit\.)?pooler\..*", name):
            unused.append(name)
        elif target is None:
            unexpected.append(name)
        elif target == "embed.proj.weight":
            renamed[target] = tensor.flatten(1)  # a Conv3d kernel [D, C, t, h, w]
        elif target == "encoder.cls":
            renamed[target] = tensor.flatten()  # [1, 1, D]
        elif target == "encoder.positions.weight":
            renamed[target] = tensor.squeeze(0)  # [1, 1 + N, D]
        else:
            renamed[target] = tensor
    grids = {"encoder.positions.weight": grid}
    return SourceWeights(source=source, state=renamed, grids=grids, unused=unused, unexpected=unexpected)


def _rename(name: str) -> str | None:
    module, suffix = name.removeprefix("vivit."), ""
    if module.endswith((".weight", ".bias")):
        module, _, leaf = module.rpartition(".")
        suffix = f".{leaf}"
    for pattern, target in _NAMES:
        if match := re.fullmatch(pattern, module):
            return match.expand(target) + suffix
    return None


def _read_settings(config: dict[str, Any], path: Path) -> tuple[ModelConfig, ClipConfig]:
    try:
        side = config["image_size"]
        size = (side, side) if isinstance(side, int) else (side[0], side[1])
        model = ModelConfig(
            form="joint",
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


def _class_names(config: dict[str, Any]) -> tuple[str, ...]:
    labels = config.get("id2label", {})
    return tuple(labels[key] for key in sorted(labels, key=int))
