"""Weights of the authors' T2T-ViT code: the released `.pth.tar` files, or the same names in a safetensors file."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from vidtl.config import T2TViTConfig
from vidtl.errors import UserError
from vidtl.models.position import Grid
from vidtl.models.t2t_vit import T2TViT
from vidtl.models.weights.files import read_state
from vidtl.models.weights.report import LoadReport, SourceWeights, load_weights

POSITIONS = "positions.weight"

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
"""Applied one after the other; a name that none fits keeps its own, and the report lists it where the model lacks
it."""


def load_t2t(
    model: T2TViT, path: Path, *, with_head: bool = True, allow_unexpected: tuple[str, ...] = ()
) -> LoadReport:
    """Puts a file of the authors' T2T-ViT into `model`; positions made for another image size are resized.

    Args:
        model: changed in place.
        path: `.pth.tar` (or `.pth`, `.pt`, `.bin`) or `.safetensors`.
        with_head: also load the classifier, which then must have as many classes.
        allow_unexpected: patterns of names that the file may hold in excess.

    Raises:
        UserError: the file is unreadable, or does not fit the model.
    """
    weights = read_t2t(path, model.positions.grid, with_head=with_head)
    allow_missing = () if with_head else ("head.*",)
    return load_weights(model, weights, allow_missing=allow_missing, allow_unexpected=allow_unexpected)


def read_t2t(path: Path, grid: Grid | None = None, *, with_head: bool = True) -> SourceWeights:
    """A file of the authors' T2T-ViT under this library's names.

    The averaged weights (`state_dict_ema`) are taken where the file has them, else `state_dict`, else the top level.

    Args:
        path: see `load_t2t`.
        grid: tokens of the model that the weights are for; positions of another size are resized to it.
        with_head: keep the classifier.

    Raises:
        UserError: the file is unreadable, or its positions belong to no square image.
    """
    converted = convert_t2t(read_state(path))
    if grid is not None and POSITIONS in converted:
        converted[POSITIONS] = _resize_bicubic(converted[POSITIONS], grid, path)
    unused = [] if with_head else [name for name in converted if name.startswith("head.")]
    kept = {name: tensor for name, tensor in converted.items() if name not in unused}
    return SourceWeights(source=str(path), state=kept, unused=unused)


def convert_t2t(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names to this library's; fused `[3 D, D]` kernels of the blocks become queries, keys and values."""
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
    """Whether a state dict is the authors' T2T-ViT, by its names."""
    return any(name.startswith("tokens_to_token.") for name in state)


def infer_t2t_config(weights: SourceWeights) -> T2TViTConfig:
    """Settings that the weights reveal; heads are 64 wide, as in every published model.

    Raises:
        UserError: weights of something else.
    """
    state = weights.state
    if "tokens.proj.weight" not in state or "tokens.layers.0.proj.weight" not in state:
        raise UserError(f"{weights.source} holds no tokens_to_token module; allowed: weights of a T2T-ViT")
    width = state["tokens.proj.weight"].shape[0]
    return T2TViTConfig(
        token_module="performer" if "tokens.layers.0.features" in state else "transformer",
        width=width,
        depth=len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}),
        num_heads=max(width // 64, 1),
        mlp_width=state["blocks.0.mlp.fc1.weight"].shape[0],
        token_width=state["tokens.layers.0.proj.weight"].shape[0],
    )


def _resize_bicubic(rows_LD: Tensor, grid: Grid, path: Path) -> Tensor:
    """Fits the table of a square image to another grid as the authors' fine-tuning does; the class row stays."""
    size = rows_LD.shape[0] - 1
    if size == grid.size:
        return rows_LD
    side = math.isqrt(size)
    if side * side != size:
        raise UserError(
            f"{path}: pos_embed has {size} rows besides the class token's; allowed: those of a square image"
        )
    table = rearrange(rows_LD[1:].float(), "(h w) D -> 1 D h w", h=side)
    table = functional.interpolate(table, size=grid[1:], mode="bicubic", align_corners=False)
    return torch.cat([rows_LD[:1], rearrange(table, "1 D h w -> (h w) D").to(rows_LD.dtype)])
