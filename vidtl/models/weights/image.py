"""Weights of image models: an image ViT to start a ViViT from (ViViT section 3.4), and the authors' T2T-ViT."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.model import ARCHITECTURES
from vidtl.errors import UserError
from vidtl.models.embedding import Grid, TubeletEmbedding
from vidtl.models.vivit import ViViT
from vidtl.models.weights.flax import flax_weights, read_flax
from vidtl.models.weights.load import SourceWeights, count_modules, read_state, rename

Inflation = Literal["central_frame", "average"]

NEW_PARTS = (
    *("head.*", "encoder.cls", "temporal_encoder.*", "encoder.token_learners.*", "encoder.token_fusers.*"),
    "encoder.blocks.*.norm_time.*",
)
"""Parameters of a ViViT that an image ViT may lack; a class token only where the paper does not take it over."""

_TIMM_NAMES = (
    (r"^cls_token$", "encoder.cls"),
    (r"^pos_embed$", "encoder.positions.weight"),
    (r"^patch_embed\.", "embed."),
    (r"^(blocks|norm)\.", r"encoder.\1."),
)

_T2T_NAMES = (
    (r"^module\.", ""),
    (r"^tokens_to_token\.attention1\.", "tokens.layers.0."),
    (r"^tokens_to_token\.attention2\.", "tokens.layers.1."),
    (r"^tokens_to_token\.project\.", "tokens.proj."),
    (r"^(tokens\.layers\.\d\.)w$", r"\1features"),
    (r"^(tokens\.layers\.\d\.)attn\.", r"\1"),
    (r"^(tokens\.layers\.\d\.mlp\.)0\.", r"\1fc1."),
    (r"^(tokens\.layers\.\d\.mlp\.)2\.", r"\1fc2."),
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", "positions.weight"),
)


def image_vit_weights(path: Path, model: ViViT, *, inflation: Inflation = "central_frame") -> SourceWeights:
    """Read the weights of an image ViT, rearranged for `model` as in ViViT's reference code.

    The patch embedding is spread over the frames of a tubelet, positions are repeated along time (or copied, where all
    timesteps share them), blocks are copied. The classifier is left out, and in the factorised encoder the class token.

    Args:
        path: timm's state dict (`.safetensors`, `.pth`) or the authors' `.npz`, older or newer.
        model: not changed.
        inflation: `central_frame` puts the patch embedding at frame t // 2 of the tubelet and zeros elsewhere;
            `average` puts a t-th of it at every frame.

    Raises:
        UserError: the file holds no image ViT.
    """
    if path.suffix == ".npz":
        image = flax_weights(read_flax(path), str(path))
    else:
        image = SourceWeights(source=str(path), state=rename(read_state(path), _TIMM_NAMES))
    state, positions = dict(image.state), image.state.get("encoder.positions.weight")
    if positions is None or "embed.proj.weight" not in state:
        raise UserError(f"{path} holds no image ViT: no position embedding or no patch embedding")
    grid = _square_grid(positions.shape[0] - ("encoder.cls" in state), path)
    if not isinstance(model.embed, TubeletEmbedding):
        raise UserError(f"model.tokenizer is {model.tokenizer!r}; allowed: 'tubelet' with {path}, an image ViT")
    state["embed.proj.weight"] = _inflate(state["embed.proj.weight"], model.embed, inflation, str(path))
    left_out = r"head\.|pre_logits\b|MAPHead|fc_norm"
    if model.factorised or model.encoder.cls is None:
        left_out += r"|encoder\.cls$"
    unused = [name for name in (*image.unexpected, *state) if re.match(left_out, name)]
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    if model.form == "factorised_self_attention":
        state = _both_attentions(state)
    unexpected = [name for name in image.unexpected if name not in unused]
    grids = {"encoder.positions.weight": grid}
    return replace(image, state=state, grids=grids, unused=unused, unexpected=unexpected)


def _square_grid(size: int, path: Path) -> Grid:
    """Return the grid of the `size` tokens of an image; UserError where they form no square."""
    side = isqrt(size)
    if side * side != size:
        raise UserError(f"{path}: the positions are those of {size} tokens; allowed: a square number")
    return Grid(1, side, side)


def _inflate(kernel: Tensor, embed: TubeletEmbedding, inflation: Inflation, source: str) -> Tensor:
    """`[D, C h w] -> [D, C t h w]`."""
    length, height, width = embed.tubelet
    pixels = 3 * height * width
    if kernel.shape[1] != pixels:
        raise UserError(
            f"{source}: the patch embedding covers {kernel.shape[1]} values; allowed: {pixels}, a patch of "
            f"{height}x{width} pixels in 3 channels as the model has"
        )
    image_DCP = kernel.view(kernel.shape[0], 3, -1)
    video_DCtP = torch.zeros(kernel.shape[0], 3, length, image_DCP.shape[-1], dtype=kernel.dtype)
    if inflation == "central_frame":
        video_DCtP[:, :, length // 2] = image_DCP
    else:
        video_DCtP[:] = image_DCP[:, :, None] / length
    return video_DCtP.flatten(1)


def _both_attentions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of plain blocks into those of factorised self-attention blocks.

    Attention over time starts from that over space, with an output projection of 0, so that the model starts as if each
    frame were alone. (The paper sets all of it to 0, which would let nothing but the output bias learn.)
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.replace(".norm1.", ".norm_space.").replace(".norm2.", ".norm_mlp.")
        split[name.replace(".attn.", ".attn_space.")] = tensor
        if ".attn." in name:
            split[name.replace(".attn.", ".attn_time.")] = torch.zeros_like(tensor) if ".proj." in name else tensor
    return split


def read_t2t(path: Path) -> SourceWeights:
    """Read a file of the authors' T2T-ViT: a released `.pth.tar` (or `.pth`, `.pt`, `.bin`) or `.safetensors`.

    Averaged weights (`state_dict_ema`) are taken where the file has them, else `state_dict`, else the top level.

    Raises:
        UserError: the file is unreadable, or its positions are not those of a square image.
    """
    state = rename(read_state(path), _T2T_NAMES)
    positions = state.get("positions.weight")
    grids = {} if positions is None else {"positions.weight": _square_grid(positions.shape[0] - 1, path)}
    return SourceWeights(source=str(path), state=state, grids=grids)


def is_t2t(state: Mapping[str, Tensor]) -> bool:
    """Recognize a state dict of the authors' T2T-ViT by its names."""
    return any(name.startswith("tokens_to_token.") for name in state)


def infer_t2t_config(weights: SourceWeights) -> ModelConfig:
    """Infer settings from the weights, with heads of width 64 as in every published model.

    Raises:
        UserError: weights of another model.
    """
    state = weights.state
    token_layer, mlp = "tokens.layers.0.proj.weight", "blocks.0.mlp.fc1.weight"
    if not {"tokens.proj.weight", token_layer, "positions.weight", mlp} <= state.keys():
        raise UserError(f"{weights.source} lacks tokens_to_token, pos_embed or blocks; allowed: weights of a T2T-ViT")
    width = state["tokens.proj.weight"].shape[0]
    return ModelConfig(
        architecture="t2t_vit",
        tokenizer="t2t_performer" if "tokens.layers.0.features" in state else "t2t_transformer",
        width=width,
        depth=count_modules(state, r"blocks\.(\d+)\."),
        num_heads=max(width // 64, 1),
        mlp_width=state[mlp].shape[0],
        token_width=state[token_layer].shape[0],
    )


def t2t_clip(weights: SourceWeights, frame_size: tuple[int, int] | None = None) -> ClipConfig:
    """Return the clip of the authors' evaluation, at `frame_size` or else at the size of the positions.

    The crop is 0.9 of the resized image's shorter side, rounded to an even number.
    """
    grid = weights.grids["positions.weight"]
    size = frame_size or (16 * grid.h, 16 * grid.w)  # the strides of the three splits are 4, 2 and 2
    clip = {**ARCHITECTURES["t2t_vit"].clip, "frame_size": size, "short_side": max(size) * 10 // 18 * 2}
    return ClipConfig(**clip)
