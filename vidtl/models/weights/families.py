"""Families of published weights, told apart by their config.json or by the names of their tensors."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vidtl.models.weights.flax import is_flax_vit, is_flax_vivit, read_flax_vit, read_flax_vivit
from vidtl.models.weights.huggingface import read_vivit
from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.t2t import is_t2t, read_t2t

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
Reader = Callable[[Config, State, str], PublishedModel]

FAMILIES: dict[str, tuple[Callable[[Config, State], bool], Reader]] = {
    "transformers' ViViT": (lambda config, state: config.get("model_type") == "vivit", read_vivit),
    "T2T-ViT": (lambda config, state: is_t2t(state), read_t2t),
    "Flax ViViT": (lambda config, state: is_flax_vivit(state), read_flax_vivit),
    "Flax image ViT": (lambda config, state: is_flax_vit(state), read_flax_vit),
}
"""Test and reader of each family."""


def find_reader(config: Config, state: State) -> Reader | None:
    """Return the reader of the first family whose test passes."""
    return next((reader for test, reader in FAMILIES.values() if test(config, state)), None)
