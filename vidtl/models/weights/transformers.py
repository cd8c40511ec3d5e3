"""Hugging Face transformers: ViT, DINOv2 with and without registers, the image encoders of CLIP and SigLIP, and ViViT.

Names of saved files are read, old and new, and those of the modules of transformers 5.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from vidtl.config.checks import require
from vidtl.models.embedding import Grid, Resizing
from vidtl.models.weights.image_vit import check_image_vit, publish_image_vit
from vidtl.models.weights.load import PublishedModel, rename
from vidtl.models.weights.settings import pair, publish, read_activation, read_labels, read_normalization, read_sizes

_log = logging.getLogger(__name__)

TRANSFORMERS_NAMES = (
    (r"^(?:vit|dinov2|dinov2_with_registers|vision_model|timesformer)\.", ""),
    (r"^embeddings\.(?:cls_token|class_embedding)$", "encoder.cls"),
    (r"^embeddings\.register_tokens$", "encoder.registers"),
    (r"^embeddings\.position_embedding(?:s|\.weight)$", "encoder.positions.weight"),
    (r"^embeddings\.patch_embedding(?:s\.projection)?\.", "embed.proj."),
    (r"^pre_layrnorm\.", "encoder.input_norm."),
    (r"^head\.probe$", "pool.probe"),
    (r"^head\.attention\.in_proj_", "pool.qkv."),
    (r"^head\.attention\.out_proj\.", "pool.proj."),
    (r"^head\.layernorm\.", "pool.norm."),
    (r"^head\.mlp\.", "pool.mlp."),
    (r"^(?:post_)?layernorm\.", "encoder.norm."),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"encoder.blocks.\1."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.attention\.output\.dense\.|\.(?:attention\.o|self_attn\.out)_proj\.", ".attn.proj."),
    (r"\.(?:attention\.attention|attention|self_attn)\.(qkv|[qkv])(?:uery|ey|alue|_proj)?\.", r".attn.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".scale\1.weight"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^(?:classifier|visual_projection)\.", "head."),
)

_UNUSED = r"(\w+\.)?(text_|logit_|pooler\.)|.*\.(mask_token|position_ids)$"
"""Text model, masked training, a buffer, and the pooler of ViT, which precedes no classifier."""


class _Family(NamedTuple):
    """What files need not state: transformers' defaults, and the values of pixels in training."""

    hidden_act: str
    norm_eps: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resizing: Resizing = "bicubic"
    left_out: str = ""
    """Parts that do not fit together: a classifier with another input than the encoder's pooling, or no pooling."""


_HALF = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_FAMILIES = {
    "vit": _Family("gelu", 1e-12, _HALF, _HALF),
    # Mean of tokens: without final norm, and in place of attention pooling; then the class token beside such a mean.
    "clip": _Family("quick_gelu", 1e-5, *_CLIP, left_out=r"classifier\."),
    "siglip": _Family("gelu_pytorch_tanh", 1e-6, _HALF, _HALF, left_out=r"(vision_model\.)?head\."),
    "dinov2": _Family("gelu", 1e-6, *_IMAGENET, left_out=r"classifier\."),
    "dinov2_with_registers": _Family("gelu", 1e-6, *_IMAGENET, "bicubic_antialiased", r"classifier\."),
}


def read_transformers_image(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Convert weights and settings; a projection becomes the classifier."""
    family = _FAMILIES[config["model_type"].removesuffix("_vision_model")]
    vision = config.get("vision_config", config)
    check_image_vit(state, source)
    left_out = _UNUSED
    if "classifier.weight" in state and (other := family.left_out):
        left_out += f"|{other}"
        message = "%s: its classifier reads the tokens out in another way than the encoder; left out: %s"
        _log.warning(message, source, other)
    unused = [name for name in state if re.match(left_out, name)]
    renamed = rename({name: tensor for name, tensor in state.items() if name not in unused}, TRANSFORMERS_NAMES)
    settings = {
        "num_heads": vision.get("num_attention_heads", 12),
        "activation": read_activation({"hidden_act": family.hidden_act, **vision}, source),
        "norm_eps": vision.get("layer_norm_eps", family.norm_eps),
    }
    size = pair(vision.get("image_size", 224))
    has_classes = "head.weight" in renamed and "classifier.weight" in state
    return publish_image_vit(
        renamed, source, settings, clip=_read_clip(config, size, family, source), resizing=family.resizing,
        image_size=size, class_names=read_labels(config, source) if has_classes else (), unused=unused,
    )  # fmt: skip


def _read_clip(config: Mapping[str, Any], size: tuple[int, int], family: _Family, source: str) -> dict[str, Any]:
    """Return the clip of `preprocessor_config.json`; a warning names the values of training that it lacks."""
    preprocessor = config.get("preprocessor") or {}
    normalization = read_normalization(preprocessor)
    if not normalization:
        normalization = {"mean": family.mean, "std": family.std}
        _log.warning("%s has no image_mean; assumed: clip.mean %s, clip.std %s", source, *normalization.values())
    resized, cropped = (_read_size(preprocessor.get(key)) for key in ("size", "crop_size"))
    size = (cropped if preprocessor.get("do_center_crop") else resized) or size
    return {"frame_size": size, "short_side": max(*size, *(resized or ())), **normalization}


def _read_size(size: Any) -> tuple[int, int] | None:
    """Return height and width for a size of a preprocessor: a number, or a mapping with its sides."""
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size.get("shortest_edge")
    return None if size is None else pair(size)


_REQUIRED = {"qkv_bias": True, "num_channels": 3}
"""Settings of ViViT with a fixed value here; a model trained with another would load and be wrong."""


def read_vivit(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Read settings, clip, class names and weights; the pooler, which precedes no classifier, is left out."""
    for key, needed in _REQUIRED.items():
        require(config.get(key, needed) == needed, f"{source}: {key}", config.get(key), repr(needed))
    renamed = rename(state, ((r"^vivit\.", ""), *TRANSFORMERS_NAMES))
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
