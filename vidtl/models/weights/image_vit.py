"""Image ViTs as ViViTs of single frames: refusals, parts that files leave out, and settings that follow from shapes."""

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from vidtl.errors import UserError
from vidtl.models.embedding import Grid, Resizing
from vidtl.models.weights.load import PublishedModel, SourceWeights
from vidtl.models.weights.settings import read_sizes, shape_of

_SIGNS = (
    (r"\.mlp\.(fc1_[gx]|w12|w3|weights_in|weights_out)\.", "a SwiGLU MLP"),
    (r"\brope|\.freqs", "rotary positions"),
    (r"relative_position_bias|rel_pos", "relative positions"),
    (r"\b[qk]_norm\.|\.attn\.norm\.", "attention with norms of its own"),
    (r"\.attn\.(q_bias|q_proj\.)", "attention of EVA, with rotary positions"),
    (r"\.attns\.|\.ffns\.|\.in_proj\.", "branches side by side"),
    (r"patch_embed\.(backbone|norm|conv)", "a patch embedding of several layers"),
    (r"dist_token|head_dist", "a distilled DeiT, which has two class tokens and two heads"),
)
"""Patterns of names that only other models have, and what they belong to."""


def check_image_vit(state: Mapping[str, Tensor], source: str) -> None:
    """Raise a UserError for a model with parts that the ViT here lacks, by names and shapes as in its file."""
    for pattern, what in _SIGNS:
        for name in state:
            if re.search(pattern, name):
                refuse(source, name, what)
    for name, tensor in state.items():
        stem = name.removesuffix("weight")
        if re.search(r"norm\w*\.weight$", name) and f"{stem}bias" not in state:
            refuse(source, f"{name} without bias", "an RMSNorm")
        if name.endswith(".fc1.weight") and len(tensor) == 2 * shape_of(state, f"{stem[:-2]}2.weight", source)[1]:
            refuse(source, f"{name} {list(tensor.shape)}", "a packed SwiGLU MLP")
        is_kernel = re.search(r"patch_embed\w*\.(proj\w*\.)?weight$", name)
        if is_kernel and (tensor.ndim != 4 or tensor.shape[1] != 3 or tensor.shape[2] != tensor.shape[3]):
            refuse(source, f"{name} {list(tensor.shape)}", "other inputs than square patches of RGB images")
    if not any("pos_embed" in name or "position_embedding" in name for name in state):
        refuse(source, "a state dict without position embedding", "a model with rotary or relative positions")


def refuse(source: str, part: str, what: str) -> None:
    """Raise a UserError for a part or setting of another model."""
    allowed = "learned positions, LayerNorm, and blocks of norm, attention, norm, and an MLP with GELU"
    raise UserError(f"{source}: {part} belongs to {what}; allowed: {allowed}")


def publish_image_vit(
    state: dict[str, Tensor],
    source: str,
    settings: Mapping[str, Any],
    *,
    clip: Mapping[str, Any],
    resizing: Resizing,
    image_size: tuple[int, int] | None = None,
    averages: bool = False,
    class_names: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> PublishedModel:
    """Complete a renamed state: a ViViT that encodes each frame alone and averages the features of the frames.

    Args:
        state: changed in place; attention pooling has its query as `pool.probe`, `pool.q.weight` and `pool.q.bias`.
        source: origin, for messages.
        settings: keys of `model` that do not follow from shapes.
        clip: keys of `clip`; without a frame size, that of the positions. It is rounded down to whole patches.
        resizing, class_names, unused: as in `SourceWeights`.
        image_size: height and width of the positions in pixels, where they are known; else they form a square.
        averages: the patches are averaged although there is a class token, which becomes a register.
    """
    patch = isqrt(shape_of(state, "embed.proj.weight", source)[1] // 3)
    pooling = _complete_pooling(state, averages, source)
    grid = _arrange_prefix(state, pooling, patch, image_size, source)
    for name, tensor in list(state.items()):
        if re.search(r"(embed\.proj|\.attn\.[qkv]|^head)\.weight$", name):
            state.setdefault(f"{name.removesuffix('weight')}bias", tensor.new_zeros(len(tensor)))
    model = {
        "form": "factorised_encoder",
        "temporal_depth": 0,
        "tubelet": (1, patch, patch),
        **read_sizes(state, source),
        "pooling": pooling,
        "num_registers": len(state.get("encoder.registers", ())),
        "input_norm": "encoder.input_norm.weight" in state,
        "layer_scale": 1e-5 if "encoder.blocks.0.scale1.weight" in state else 0.0,
        **settings,
    }
    size = tuple(side // patch * patch for side in clip.get("frame_size", (grid.h * patch, grid.w * patch)))
    weights = SourceWeights(
        source=source, state=state, grids={"encoder.positions.weight": grid}, resizing=resizing,
        class_names=class_names, unused=unused,
    )  # fmt: skip
    return PublishedModel(model=model, clip={"short_side": max(size), **clip, "frame_size": size}, weights=weights)


def _complete_pooling(state: dict[str, Tensor], averages: bool, source: str) -> str:
    """Return the pooling that the names show; its query, if any, becomes one vector."""
    if "pool.norm.weight" in state and "pool.probe" not in state:
        return "mean_norm"
    if "encoder.norm.weight" not in state:
        refuse(source, "a state dict without final norm", "a model that reads out tokens without it")
    if "pool.probe" in state:
        query, weight, bias = (state.pop(f"pool.{name}") for name in ("probe", "q.weight", "q.bias"))
        state["pool.query"] = F.linear(query.flatten(), weight, bias)
        return "attention_mlp"
    return "mean" if averages or "encoder.cls" not in state else "cls"


def _arrange_prefix(
    state: dict[str, Tensor], pooling: str, patch: int, size: tuple[int, int] | None, source: str
) -> Grid:
    """Give all prefix tokens a row of positions, and make a class token that is not read out a register."""
    cls, registers = (state.pop(f"encoder.{name}", None) for name in ("cls", "registers"))
    if cls is not None and pooling == "cls":
        state["encoder.cls"] = cls
    kept = [part for part in (cls if pooling != "cls" else None, registers) if part is not None]
    if kept:
        state["encoder.registers"] = torch.cat([part.view(-1, part.shape[-1]) for part in kept])
    rows_LD = state["encoder.positions.weight"]
    num_prefix = (cls is not None) + len(registers if registers is not None else ())
    grid = find_grid(len(rows_LD), num_prefix, patch, size, source)
    given = rows_LD[: len(rows_LD) - grid.size]
    lacking = rows_LD.new_zeros(num_prefix - len(given), rows_LD.shape[1])
    state["encoder.positions.weight"] = torch.cat([given, lacking, rows_LD[len(given) :]])
    return grid


def find_grid(num_rows: int, num_prefix: int, patch: int, size: tuple[int, int] | None, source: str) -> Grid:
    """Return the grid of positions behind those of prefix tokens; UserError for rows of neither `size` nor a square."""
    side = isqrt(num_rows)
    stated = [Grid(1, size[0] // patch, size[1] // patch)] if size else []
    for grid in (*stated, Grid(1, side, side)):
        if 0 <= num_rows - grid.size <= num_prefix:
            return grid
    raise UserError(f"{source}: the position embedding has {num_rows} rows; allowed: those of a square of patches")
