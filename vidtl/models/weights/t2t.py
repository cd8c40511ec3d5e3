"""Weights of the authors' T2T-ViT code: the released `.pth.tar` files, or the same names in a safetensors file."""

import re
from collections.abc import Mapping
from pathlib import Path

from einops import rearrange
from torch import Tensor

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.model import ARCHITECTURES
from vidtl.errors import UserError
from vidtl.models.position import square_grid
from vidtl.models.weights.files import read_state
from vidtl.models.weights.report import SourceWeights

POSITIONS = "positions.weight"

PIXELS_PER_TOKEN = 16
"""Along height and width: the strides of the three splits, 4, 2 and 2."""

_NAMES = (
    (r"^tokens_to_token\.attention1\.", "tokens.layers.0."),
    (r"^tokens_to_token\.attention2\.", "tokens.layers.1."),
    (r"^tokens_to_token\.project\.", "tokens.proj."),
    (r"^(tokens\.layers\.\d\.)w$", r"\1features"),
    (r"^(tokens\.layers\.\d\.)attn\.", r"\1"),
    (r"^(tokens\.layers\.\d\.mlp\.)0\.", r"\1fc1."),
    (r"^(tokens\.layers\.\d\.mlp\.)2\.", r"\1fc2."),
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", POSITIONS),
)
"""Applied one after the other; a name that none fits is kept, and reported where the model lacks it."""


def read_t2t(path: Path) -> SourceWeights:
    """Read a file of the authors' T2T-ViT under this library's names.

    The averaged weights (`state_dict_ema`) are taken where the file has them, else `state_dict`, else the top level.

    Args:
        path: `.pth.tar` (or `.pth`, `.pt`, `.bin`) or `.safetensors`.

    Raises:
        UserError: the file is unreadable, or its positions belong to no square image.
    """
    state = convert_t2t(read_state(path))
    grids = {POSITIONS: square_grid(state[POSITIONS].shape[0] - 1, str(path))} if POSITIONS in state else {}
    return SourceWeights(source=str(path), state=state, grids=grids)


def convert_t2t(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' weights; fused `[3 D, D]` kernels of the blocks become queries, keys and values."""
    converted: dict[str, Tensor] = {}
    for source, tensor in state.items():
        name = source.removeprefix("module.")
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if re.match(r"blocks\.\d+\.attn\.qkv\.", name):
            parts = rearrange(tensor, "(part D) ... -> part D ...", part=3)
            converted.update({name.replace("qkv", part): parts[i] for i, part in enumerate("qkv")})
        elif name in ("cls", POSITIONS):
            converted[name] = tensor.reshape(-1, tensor.shape[-1]).squeeze(0)
        else:
            converted[name] = tensor
    return converted


def is_t2t(state: Mapping[str, Tensor]) -> bool:
    """Recognize a state dict of the authors' T2T-ViT by its names."""
    return any(name.startswith("tokens_to_token.") for name in state)


def infer_t2t_config(weights: SourceWeights) -> ModelConfig:
    """Infer settings from the weights; heads are 64 wide, as in every published model.

    Raises:
        UserError: weights of something else.
    """
    state = weights.state
    if not {"tokens.proj.weight", "tokens.layers.0.proj.weight", POSITIONS, "blocks.0.mlp.fc1.weight"} <= state.keys():
        raise UserError(f"{weights.source} lacks tokens_to_token, pos_embed or blocks; allowed: weights of a T2T-ViT")
    width = state["tokens.proj.weight"].shape[0]
    return ModelConfig(
        architecture="t2t_vit",
        tokenizer="t2t_performer" if "tokens.layers.0.features" in state else "t2t_transformer",
        width=width,
        depth=len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}),
        num_heads=max(width // 64, 1),
        mlp_width=state["blocks.0.mlp.fc1.weight"].shape[0],
        token_width=state["tokens.layers.0.proj.weight"].shape[0],
    )


def t2t_clip(weights: SourceWeights, frame_size: tuple[int, int] | None = None) -> ClipConfig:
    """Return the clip of the authors' evaluation, at `frame_size` or else at the size of the positions.

    The crop is 0.9 of the resized image's shorter side, rounded to an even number.
    """
    grid = weights.grids[POSITIONS]
    size = frame_size or (PIXELS_PER_TOKEN * grid.h, PIXELS_PER_TOKEN * grid.w)
    clip = {**ARCHITECTURES["t2t_vit"].clip, "frame_size": size, "short_side": max(size) * 10 // 18 * 2}
    return ClipConfig(**clip)
