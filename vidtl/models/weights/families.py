"""Families of published weights, told apart by their config.json or by the names of their tensors."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vidtl.models.weights.flax import is_flax_vit, is_flax_vivit, read_flax_vit, read_flax_vivit
from vidtl.models.weights.huggingface import is_vivit, read_vivit
from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.t2t import is_t2t, read_t2t
from vidtl.models.weights.timesformer import is_timesformer, read_timesformer
from vidtl.models.weights.timm import is_timm, read_timm
from vidtl.models.weights.transformers_image import is_transformers_image, read_transformers_image
from vidtl.models.weights.videomae import is_videomae, read_videomae
from vidtl.models.weights.videoprism import is_videoprism, read_videoprism

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
Reader = Callable[[Config, State, str], PublishedModel]
"""Conversion of config.json and tensors; the last argument is their origin, for messages.

UserError for a setting or part that the model here lacks, and for weights without which its sizes are open.
"""

FAMILIES: dict[str, tuple[Callable[[Config, State], bool], Reader]] = {
    "ViViT of transformers": (is_vivit, read_vivit),
    "VideoMAE": (is_videomae, read_videomae),
    "VideoPrism": (is_videoprism, read_videoprism),
    "TimeSformer": (is_timesformer, read_timesformer),
    "image encoders of transformers": (is_transformers_image, read_transformers_image),
    "image ViTs of timm": (is_timm, read_timm),
    "T2T-ViT": (is_t2t, read_t2t),
    "Flax ViViT": (is_flax_vivit, read_flax_vivit),
    "Flax image ViT": (is_flax_vit, read_flax_vit),
}
"""Test and reader of each family."""


def find_reader(config: Config, state: State) -> Reader | None:
    """Return the reader of the first family whose test passes."""
    return next((reader for test, reader in FAMILIES.values() if test(config, state)), None)
