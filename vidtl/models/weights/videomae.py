"""VideoMAE (Tong et al., 2022) and VideoMAE v2 (Wang et al., 2023): the joint form with fixed positions.

Three layouts are read: directories of transformers (`model_type` videomae), the authors' `.pth` files, and OpenGVLab's
`VideoMAEv2-*` directories, whose names are the authors' and whose settings are nested in `model_config`.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidtl.errors import UserError
from vidtl.models.weights.load import PublishedModel, rename
from vidtl.models.weights.settings import SSV2_CLASSES, pair, publish, read_activation, read_sizes
from vidtl.models.weights.timm import TIMM_NAMES
from vidtl.models.weights.transformers import TRANSFORMERS_NAMES

_log = logging.getLogger(__name__)

_NAMES = (
    (r"^(?:videomae|model|backbone)\.", ""),
    (r"^encoder\.(?!layer\.)", ""),
    (r"\.(?:attention\.attention|attn)\.([qv])_bias$", r".attn.\1.bias"),
    *TRANSFORMERS_NAMES,
    *TIMM_NAMES,
)
_DECODER = r"(decoder|encoder_to_decoder|mask_token)\b"

_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}  # of the authors' models, by width


def read_videomae(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Convert weights and settings; a file without a classifier becomes an encoder that is averaged over its tokens."""
    scaled = [name for name in state if name.endswith("attn.scale")]
    if scaled:
        raise UserError(f"{source}: {scaled[0]} belongs to cosine attention; allowed: cos_attn false")
    settings = config.get("model_config", config)
    in_transformers = config.get("model_type") == "videomae"
    unused = [name for name in state if re.match(_DECODER, name)]
    renamed = rename({name: tensor for name, tensor in state.items() if name not in unused}, _NAMES)
    model = _read_sizes(settings, state, renamed, source)
    for block in range(model["depth"]):  # keys have no bias
        renamed.setdefault(f"encoder.blocks.{block}.attn.k.bias", torch.zeros(model["width"]))
    has_head = "head.weight" in renamed
    if "encoder.norm.weight" in renamed:
        pooling = "first" if has_head else "mean"
    else:
        pooling = "mean_norm"
        if not has_head:  # the norm of the mean starts with the classifier
            renamed.setdefault("pool.norm.weight", torch.ones(model["width"]))
            renamed.setdefault("pool.norm.bias", torch.zeros(model["width"]))
    eps = settings.get("layer_norm_eps", 1e-12 if in_transformers else 1e-6)
    model |= {
        "pooling": pooling,
        "activation": read_activation(settings, source),
        "norm_eps": eps,
        "pooled_norm_eps": 1e-5 if in_transformers else eps,
    }
    size = pair(settings.get("image_size", settings.get("img_size", 224)))
    of_ssv2 = has_head and len(renamed["head.weight"]) == SSV2_CLASSES
    clip = {  # of the authors' evaluation
        "num_frames": settings.get("num_frames", settings.get("all_frames", 16)),
        "frame_size": size,
        "short_side": max(size),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        **({"sampling": "segments"} if of_ssv2 else {"stride": 4}),
    }
    return publish(config, renamed, source, model, clip, {}, unused)


def _read_sizes(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], renamed: Mapping[str, Tensor], source: str
) -> dict[str, Any]:
    """Return the settings that follow from shapes, and the number of heads, which does not."""
    sizes = read_sizes(renamed, source)
    width = sizes["width"]
    kernel = next(tensor for name, tensor in state.items() if re.search(r"patch_embed.*proj(ection)?\.weight$", name))
    heads = ("num_attention_heads", "encoder_num_heads", "num_heads")
    num_heads = next((settings[key] for key in heads if key in settings), _HEADS.get(width))
    if num_heads is None:
        allowed = f"a config.json with num_heads, or a width of {', '.join(map(str, _HEADS))}"
        raise UserError(f"{source}: the number of heads is open at width {width}; allowed: {allowed}")
    if (width, num_heads) == (384, 16):
        _log.warning("%s: num_attention_heads is 16; the authors' model of width 384 has 6", source)
    return {
        "form": "joint",
        "positions": "sincos_1d",
        **sizes,
        "num_heads": num_heads,
        "tubelet": tuple(kernel.shape[2:]),
        "layer_scale": 1.0 if "encoder.blocks.0.scale1.weight" in renamed else 0.0,
    }
