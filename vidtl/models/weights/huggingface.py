"""ViViT directories of Hugging Face transformers (`VivitForVideoClassification`, `VivitModel`): the joint form.

Both naming schemes are read: that of saved files, and that of the modules of transformers 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.models.embedding import Grid
from vidtl.models.weights.load import PublishedModel, SourceWeights, rename
from vidtl.models.weights.settings import pair, read_activation, read_class_names, read_normalization
from vidtl.models.weights.transformers_image import TRANSFORMERS_NAMES

_NAMES = ((r"^vivit\.", ""), *TRANSFORMERS_NAMES)

# Settings with a fixed value here; a model trained with another would load and be wrong.
_REQUIRED = {"qkv_bias": True, "num_channels": 3}


def is_vivit(config: Mapping[str, Any], _: Mapping[str, Tensor]) -> bool:
    """Recognize a directory of transformers by `model_type`."""
    return config.get("model_type") == "vivit"


def read_vivit(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Read settings, clip, class names and weights of a ViViT."""
    for key, needed in _REQUIRED.items():
        require(config.get(key, needed) == needed, f"{source}: {key}", config.get(key), repr(needed))
    try:
        size = pair(config["image_size"])
        model = {
            "form": "joint",
            "activation": read_activation({"hidden_act": "gelu_fast", **config}, source),
            "norm_eps": config.get("layer_norm_eps", 1e-6),
            "width": config["hidden_size"],
            "depth": config["num_hidden_layers"],
            "num_heads": config["num_attention_heads"],
            "mlp_width": config["intermediate_size"],
            "tubelet": tuple(config["tubelet_size"]),
            "pooling": "cls",
        }
    except KeyError as error:
        raise UserError(f"{source}: {error.args[0]} is missing") from error
    clip = {"num_frames": config.get("num_frames", 32), "frame_size": size, "short_side": max(256, *size)}
    length, height, width = config["tubelet_size"]
    grid = Grid(clip["num_frames"] // length, size[0] // height, size[1] // width)
    weights = huggingface_weights(state, source, grid, read_class_names(config, source))
    return PublishedModel(model=model, clip=clip | read_normalization(config["preprocessor"]), weights=weights)


def huggingface_weights(
    state: Mapping[str, Tensor], source: str, grid: Grid, class_names: Sequence[str] = ()
) -> SourceWeights:
    """Rename a state dict of transformers; its pooler, which precedes no classifier, is left out."""
    renamed = rename(state, _NAMES)
    unused = [name for name in renamed if name.startswith("pooler.")]
    kept = {name: tensor for name, tensor in renamed.items() if name not in unused}
    grids = {"encoder.positions.weight": grid}
    return SourceWeights(source=source, state=kept, grids=grids, class_names=class_names, unused=unused)
