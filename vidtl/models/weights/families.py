"""Families of published weights, told apart by their config.json or by the names of their tensors."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from vidtl.models.weights.flax import read_flax_vit, read_flax_vivit
from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.t2t import read_t2t
from vidtl.models.weights.timesformer import read_timesformer
from vidtl.models.weights.timm import read_timm
from vidtl.models.weights.transformers import read_transformers_image, read_vivit
from vidtl.models.weights.videomae import read_videomae
from vidtl.models.weights.videoprism import read_videoprism

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
Reader = Callable[[Config, State, str], PublishedModel]
"""Conversion of config.json and tensors; the last argument is their origin, for messages.

UserError for a setting or part that the model here lacks, and for weights without which its sizes are open.
"""


class Family(NamedTuple):
    """A reader, and patterns of its weights."""

    read: Reader
    model_type: str
    """Of config.json; where that or the family has none, `tensors` decide."""
    tensors: tuple[str, ...] = ()
    """All are found among the lines of name and number of axes."""


FAMILIES = {
    "ViViT of transformers": Family(read_vivit, "vivit"),
    "VideoMAE": Family(read_videomae, "(?i:videomae.*)", (r"patch_embed\.proj\.weight 5$", r"\.attn\.q_bias ")),
    "VideoPrism": Family(read_videoprism, "videoprism.*", ("patch_projection/linear/kernel ",)),
    "TimeSformer": Family(read_timesformer, "timesformer", (r"^(model\.)?time_embed ",)),
    "image encoders of transformers": Family(
        read_transformers_image, "(vit|clip|siglip|dinov2|dinov2_with_registers)(_vision_model)?"
    ),
    "image ViTs of timm": Family(
        read_timm, "timm", (r"^(patch_embed\.proj|(visual\.)?conv1)\.weight 4$", r"blocks\.0\.")
    ),
    "T2T-ViT": Family(read_t2t, "", (r"tokens_to_token\.",)),
    "Flax ViViT": Family(read_flax_vivit, "", ("^(embedding/kernel 5$|SpatialTransformer/encoder_norm/scale )",)),
    "Flax image ViT": Family(read_flax_vit, "", ("^embedding/kernel 4$", "^Transformer/posembed_input/pos_embedding ")),
}


def find_reader(config: Config, state: State) -> Reader | None:
    """Return the reader of the first family that fits; `architecture` in config.json is timm's."""
    kind = config.get("model_type") or ("timm" if "architecture" in config else "")
    lines = "\n".join(f"{name} {tensor.ndim}" for name, tensor in state.items())
    for read, model_type, tensors in FAMILIES.values():
        has_tensors = tensors and all(re.search(pattern, lines, re.MULTILINE) for pattern in tensors)
        if re.fullmatch(model_type, str(kind)) if kind and model_type else has_tensors:
            return read
    return None
