"""ViViT directories of Hugging Face transformers (`VivitForVideoClassification`, `VivitModel`): the joint form.

Both naming schemes are read: that of saved files, and that of the modules of transformers 5.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidtl.config.checks import require
from vidtl.models.embedding import Grid
from vidtl.models.weights.load import PublishedModel, rename
from vidtl.models.weights.settings import pair, publish, read_activation, read_sizes
from vidtl.models.weights.transformers_image import TRANSFORMERS_NAMES

_NAMES = ((r"^vivit\.", ""), *TRANSFORMERS_NAMES)

# Settings with a fixed value here; a model trained with another would load and be wrong.
_REQUIRED = {"qkv_bias": True, "num_channels": 3}


def read_vivit(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Read settings, clip, class names and weights; the pooler, which precedes no classifier, is left out."""
    for key, needed in _REQUIRED.items():
        require(config.get(key, needed) == needed, f"{source}: {key}", config.get(key), repr(needed))
    renamed = rename(state, _NAMES)
    unused = [name for name in renamed if name.startswith("pooler.")]
    for name in unused:
        del renamed[name]
    size, tubelet = pair(config["image_size"]), tuple(config["tubelet_size"])
    model = {
        "form": "joint",
        **read_sizes(renamed, source),
        "num_heads": config["num_attention_heads"],
        "tubelet": tubelet,
        "pooling": "cls",
        "activation": read_activation({"hidden_act": "gelu_fast", **config}, source),
        "norm_eps": config.get("layer_norm_eps", 1e-6),
    }
    clip = {"num_frames": config.get("num_frames", 32), "frame_size": size, "short_side": max(256, *size)}
    grid = Grid(clip["num_frames"] // tubelet[0], size[0] // tubelet[1], size[1] // tubelet[2])
    return publish(config, renamed, source, model, clip, {"encoder.positions.weight": grid}, unused)
