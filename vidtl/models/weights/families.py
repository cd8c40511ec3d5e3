"""Families of published weights, told apart by their config.json or by the names of their tensors."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.timesformer import is_timesformer, read_timesformer
from vidtl.models.weights.timm import is_timm, read_timm
from vidtl.models.weights.transformers_image import is_transformers_image, read_transformers_image

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
Reader = Callable[[Config, State, str], PublishedModel]

FAMILIES: dict[str, tuple[Callable[[Config, State], bool], Reader]] = {
    "TimeSformer": (is_timesformer, read_timesformer),
    "transformers' image encoder": (is_transformers_image, read_transformers_image),
    "timm's image ViT": (is_timm, read_timm),
}
"""Test and reader of each family."""


def find_reader(config: Config, state: State) -> Reader | None:
    """Return the reader of the first family whose test passes."""
    return next((reader for test, reader in FAMILIES.values() if test(config, state)), None)
