"""VideoPrism (Zhao et al., 2024): a factorised encoder whose temporal blocks run over time at each place.

Directories of transformers (`VideoPrismVisionModel`, `VideoPrismForVideoClassification`) and the authors' Flax `.npz`
files are read. Both store the gains of norms minus 1.
"""

import re
from collections.abc import Mapping
from math import isqrt, log
from typing import Any

import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange
from torch import Tensor

from vidtl.errors import UserError
from vidtl.models.embedding import Grid
from vidtl.models.weights.load import PublishedModel, count_modules, rename
from vidtl.models.weights.settings import pair, publish, read_activation, read_sizes, shape_of

_NAMES = (
    (r"^vision_model\.", ""),
    (r"^spatial_embeddings\.patch_embeddings\.projection\.", "embed.proj."),
    (r"^spatial_", "encoder."),
    (r"^temporal_", "temporal_encoder."),
    (r"\.embeddings\.position_embeddings$", ".positions.weight"),
    (r"\.layers\.(\d+)\.", r".blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.", ".attn."),
    (r"^layernorm1\.", "encoder.norm."),
    (r"^layernorm2\.", "temporal_encoder.norm."),
    (r"^head_layernorm\.", "pool.norm."),
    (r"^head\.", "pool."),
    (r"\.([qkv])_proj\.", r".\1."),
    (r"\.o_proj\.", ".proj."),
    (r"^classifier\.", "head."),
)

_FLAX_NAMES = (
    (r"^(encoder/)?", ""),
    (r"/", "."),
    (r"^patch_projection\.linear\.", "embed.proj."),
    (r"^spatial_", "encoder."),
    (r"^temporal_", "temporal_encoder."),
    (r"\.pos_emb\.emb_var$", ".positions.weight"),
    (r"\.encoder\.transformers_stack\.x_layers_(\d+)\.", r".blocks.\1."),
    (r"\.ff_layer\.layer_norm\.", ".norm2."),
    (r"\.layer_norm\.", ".norm1."),
    (r"\.self_attention\.", ".attn."),
    (r"\.ff_layer\.ffn_layer([12])\.linear\.", r".mlp.fc\1."),
    (r"\.ln\.", ".norm."),
    (r"^atten_pooler\.pooling_attention_layer_norm\.", "pool.norm."),
    (r"^atten_pooler\.(pooling_attention\.)?", "pool."),
    (r"\.per_dim_scale\.per_dim_scale$", ".per_dim_scale"),
    (r"\.([qkv])(?:uery|ey|alue)\.", r".\1."),
    (r"\.post\.", ".proj."),
    (r"^projection\.linear\.", "head."),
    (r"\.(kernel|scale|w)$", ".weight"),
    (r"\.b$", ".bias"),
)


def read_videoprism(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Convert weights and settings; a model without a classifier is averaged over its tokens."""
    auxiliary = next((name for name in state if "auxiliary" in name), None)
    if auxiliary is not None:
        allowed = "VideoPrismVisionModel or VideoPrismForVideoClassification"
        raise UserError(f"{source}: {auxiliary} belongs to a model of video and text (LvT); allowed: {allowed}")
    num_heads = config.get("num_attention_heads", 12)
    if any("/" in name for name in state):
        query = "spatial_encoder/transformers_stack/x_layers_0/self_attention/query/w"
        num_heads = next((tensor.shape[1] for name, tensor in state.items() if name.endswith(query)), num_heads)
        stored = rename({name: _torch_layout(name, tensor) for name, tensor in state.items()}, _FLAX_NAMES)
    else:
        stored = rename(state, _NAMES)
    renamed = {
        name: value.float() + (1 if re.search(r"norm\d?\.weight$", name) else 0) for name, value in stored.items()
    }
    has_head = "head.weight" in renamed
    if has_head:
        renamed["pool.query"] = _pop_query(renamed, source)
    patch = isqrt(shape_of(stored, "embed.proj.weight", source)[1] // 3)
    rows, times = (f"{name}.positions.weight" for name in ("encoder", "temporal_encoder"))
    size = pair(config.get("image_size", patch * isqrt(shape_of(stored, rows, source)[0])))
    num_frames = shape_of(stored, times, source)[0]
    grids = {rows: Grid(1, size[0] // patch, size[1] // patch), times: Grid(num_frames, 1, 1)}
    model = {
        "form": "factorised_encoder",
        "temporal_input": "places",
        **read_sizes(renamed, source),
        "temporal_depth": count_modules(renamed, r"temporal_encoder\.blocks\.(\d+)\."),
        "num_heads": num_heads,
        "tubelet": (1, patch, patch),
        "pooling": "attention" if has_head else "mean",
        "pooling_width": len(renamed["pool.query"]) if has_head else None,
        "activation": read_activation(config, source),
        "norm_eps": config.get("layer_norm_eps", 1e-6),
        "attention_softcap": config.get("attn_logit_softcapping", config.get("atten_logit_cap", 50.0)),
    }
    clip = {"num_frames": num_frames, "frame_size": size, "short_side": max(size)}
    clip |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return publish(config, renamed, source, model, clip, grids, resizing="bilinear_antialiased")


def _pop_query(state: dict[str, Tensor], source: str) -> Tensor:
    """Replace the parts of the query of attention pooling by their product, see `vidtl/models/pooling.py`."""
    for name in (parts := ("pool.pooling_attention_query", "pool.q.weight", "pool.q.bias", "pool.per_dim_scale")):
        shape_of(state, name, source)
    query, weight, bias, scale = (state.pop(name) for name in parts)
    heads_Hd = F.linear(query.flatten(), weight, bias).view(-1, len(scale))
    return (heads_Hd * F.softplus(scale) / log(2)).flatten()


def _torch_layout(name: str, tensor: Tensor) -> Tensor:
    """Convert one Flax parameter: kernels are `[in, out]`, those of attention `[D, H, d]`, of patches `[h w C, D]`."""
    leaf = name.rpartition("/")[2]
    if name.endswith("patch_projection/linear/kernel"):
        patch = isqrt(len(tensor) // 3)
        return rearrange(tensor, "(h w C) D -> D (C h w)", h=patch, w=patch)  # type: ignore[no-any-return]
    if leaf == "w":
        return tensor.flatten(1) if "/post/" in name else tensor.flatten(1).T
    if leaf == "kernel":
        return tensor.T
    return tensor.flatten() if leaf == "b" else tensor
