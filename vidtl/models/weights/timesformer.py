"""TimeSformer (Bertasius et al., 2021) with divided attention: factorised self-attention with a class token.

Directories of transformers and the authors' `.pyth` files are read. The linear layer behind the attention over time is
multiplied into its output projection, and the tables of positions in space and in time are added up, both exactly.
"""

import logging
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from vidtl.config.checks import require_choice
from vidtl.models.embedding import Grid
from vidtl.models.weights.image_vit import find_grid
from vidtl.models.weights.load import PublishedModel, rename
from vidtl.models.weights.settings import SSV2_CLASSES, pair, publish, read_activation, read_sizes, shape_of
from vidtl.models.weights.timm import TIMM_NAMES
from vidtl.models.weights.transformers import TRANSFORMERS_NAMES

_log = logging.getLogger(__name__)

_NAMES = (
    (r"^model\.", ""),
    (r"^(?:.*\.)?time_embed(?:dings)?$", "time_positions.weight"),
    (r"\.temporal_(?:layernorm|norm1)\.", ".norm_time."),
    (r"\.temporal_(?:attention\.attention|attn)\.qkv\.", ".attn_time.qkv."),
    (r"\.temporal_(?:attention\.output\.dense|attn\.proj)\.", ".attn_time.proj."),
    (r"\.temporal_(?:dense|fc)\.", ".attn_time.dense."),
    *TRANSFORMERS_NAMES,
    *TIMM_NAMES,
    (r"\.norm1\.", ".norm_space."),
    (r"\.norm2\.", ".norm_mlp."),
    (r"\.attn\.", ".attn_space."),
)

_STRIDES = {8: 32, 16: 16, 96: 4}  # by the number of frames: base, HR and L on Kinetics


def read_timesformer(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Convert weights and settings; weights of SSv2, trained on BGR, get their patch kernels turned to RGB."""
    kind = config.get("attention_type", "divided_space_time")
    require_choice(f"{source}: attention_type", kind, ["divided_space_time"])
    renamed = rename(state, _NAMES)
    sizes = read_sizes(renamed, source)
    width, patch = sizes["width"], isqrt(shape_of(renamed, "embed.proj.weight", source)[1] // 3)
    for block in range(sizes["depth"]):
        _fold_dense(renamed, f"encoder.blocks.{block}.attn_time", source)
    of_ssv2 = len(renamed.get("head.weight", ())) == SSV2_CLASSES
    if of_ssv2:
        _log.warning("%s has the %d classes of SSv2: patch kernels turned from BGR to RGB", source, SSV2_CLASSES)
        renamed["embed.proj.weight"] = renamed["embed.proj.weight"].view(width, 3, -1).flip(1).flatten(1)
    grid = _add_up_positions(renamed, patch, pair(config["image_size"]) if "image_size" in config else None, source)
    model = {
        "form": "factorised_self_attention",
        "attention_order": "time_space",
        "tubelet": (1, patch, patch),
        **sizes,
        "num_heads": config.get("num_attention_heads", width // 64),
        "pooling": "cls",
        "activation": read_activation(config, source),
        "norm_eps": config.get("layer_norm_eps", 1e-6),
    }
    size = (grid.h * patch, grid.w * patch)
    clip = {"num_frames": grid.t, "frame_size": size, "short_side": max(size), "mean": (0.45,) * 3, "std": (0.225,) * 3}
    clip |= {"sampling": "segments"} if of_ssv2 else {"stride": _STRIDES[grid.t]} if grid.t in _STRIDES else {}
    return publish(config, renamed, source, model, clip, {"encoder.positions.weight": grid}, resizing="nearest")


def _fold_dense(state: dict[str, Tensor], attention: str, source: str) -> None:
    """Multiply the linear layer behind an attention into its output projection."""
    for layer in ("dense", "proj"):
        shape_of(state, f"{attention}.{layer}.weight", source)
    dense, bias = (state.pop(f"{attention}.dense.{part}") for part in ("weight", "bias"))
    state[f"{attention}.proj.weight"] = dense @ state[f"{attention}.proj.weight"]
    state[f"{attention}.proj.bias"] = dense @ state[f"{attention}.proj.bias"] + bias


def _add_up_positions(state: dict[str, Tensor], patch: int, size: tuple[int, int] | None, source: str) -> Grid:
    """Replace positions in space and in time by those of the whole grid; the class token has none in time."""
    for name in (names := ("encoder.positions.weight", "time_positions.weight")):
        shape_of(state, name, source)
    rows_LD, times_tD = (state.pop(name) for name in names)
    grid = find_grid(len(rows_LD), 1, patch, size, source)
    table_tND = times_tD[:, None] + rows_LD[None, 1:]
    state["encoder.positions.weight"] = torch.cat([rows_LD[:1], table_tND.flatten(0, 1)])
    return grid._replace(t=len(times_tD))
