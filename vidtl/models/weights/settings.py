"""Settings in the config.json of transformers that several families share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vidtl.config.checks import require_choice
from vidtl.errors import UserError
from vidtl.models.blocks import Activation
from vidtl.models.embedding import Grid, Resizing
from vidtl.models.weights.load import PublishedModel, SourceWeights, count_modules

SSV2_CLASSES = 174

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Activations here by their names in transformers."""


def read_activation(config: Mapping[str, Any], source: str) -> Activation:
    """Return the activation that `hidden_act` names, by default the exact GELU; UserError for another kind."""
    name = config.get("hidden_act", "gelu")
    require_choice(f"{source}: hidden_act", name, list(ACTIVATIONS))
    return ACTIVATIONS[name]


def read_labels(config: Mapping[str, Any], source: str) -> list[str]:
    """Return the names of `id2label` in the order of their numbers; UserError unless these are 0, 1, 2 ..."""
    labels = config.get("id2label") or {}
    if not isinstance(labels, dict) or labels.keys() != {str(number) for number in range(len(labels))}:
        raise UserError(f"{source}: id2label is {str(labels)[:80]}; allowed: a name for each number from 0 on")
    return [str(labels[str(number)]) for number in range(len(labels))]


def read_normalization(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """Return mean and std of a `preprocessor_config.json` for RGB in [0, 1], where it states them.

    With `rescale_factor` f, pixels v become (v f - mean) / std, and with `offset` (v f - 1 - mean) / std.
    """
    if not preprocessor:
        return {}
    if not preprocessor.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    elif None not in (given := [preprocessor.get(key) for key in ("image_mean", "image_std")]):
        mean, std = (torch.tensor(each, dtype=torch.float64).expand(3).tolist() for each in given)
    else:
        return {}
    rescales = preprocessor.get("do_rescale", True)
    scale = 255 * preprocessor.get("rescale_factor", 1 / 255) if rescales else 255.0
    shift = 1.0 if rescales and preprocessor.get("offset") else 0.0
    return {"mean": tuple((m + shift) / scale for m in mean), "std": tuple(s / scale for s in std)}


def publish(
    config: Mapping[str, Any], state: Mapping[str, Tensor], source: str, model: Mapping[str, Any],
    clip: Mapping[str, Any], grids: Mapping[str, Grid], unused: Sequence[str] = (), resizing: Resizing | None = None,
) -> PublishedModel:  # fmt: skip
    """Join renamed weights and settings, with the class names of a classifier and the normalization of `config`."""
    names = read_labels(config, source) if "head.weight" in state else []
    weights = SourceWeights(
        source=source, state=state, grids=grids, class_names=names, unused=unused, resizing=resizing
    )
    clip = {**clip, **read_normalization(config.get("preprocessor", {}))}
    return PublishedModel(model=model, clip=clip, weights=weights)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width for a size that may be one number for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def read_sizes(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Return width, depth and MLP width of the encoder, from shapes; UserError where the source lacks them."""
    return {
        "width": shape_of(state, "embed.proj.weight", source)[0],
        "depth": count_modules(state, r"encoder\.blocks\.(\d+)\."),
        "mlp_width": shape_of(state, "encoder.blocks.0.mlp.fc1.weight", source)[0],
    }


def shape_of(state: Mapping[str, Tensor], name: str, source: str) -> torch.Size:
    """Return the shape of a tensor, from which a setting is read; UserError where the source lacks it."""
    if name not in state:
        raise UserError(f"{source} has no {name}; allowed: files with all weights of a model")
    return state[name].shape
