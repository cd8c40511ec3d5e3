"""Weights of an image ViT for a ViViT (ViViT section 3.4), as in the reference code.

The patch embedding is spread over the tubelet's frames, positions are repeated along time (or copied, where all
timesteps share them), blocks are copied. The classifier is left out, and in the factorised encoder the class token too.
"""

import re
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vidtl.errors import UserError
from vidtl.models.position import square_grid
from vidtl.models.tubelet import TubeletEmbedding
from vidtl.models.vivit import ViViT
from vidtl.models.weights.files import read_state
from vidtl.models.weights.flax import flax_weights, read_flax
from vidtl.models.weights.report import SourceWeights

Inflation = Literal["central_frame", "average"]

NEW_PARTS = (
    "head.*",
    "encoder.cls",
    "temporal_encoder.*",
    "encoder.token_learners.*",
    "encoder.token_fusers.*",
    "encoder.blocks.*.norm_time.*",
)
"""Parameters of a ViViT that keep their fresh values; a class token only where the paper does not take it over."""


def image_vit_weights(
    path: Path,
    model: ViViT,
    *,
    inflation: Inflation = "central_frame",
) -> SourceWeights:
    """Read the weights of an image ViT, rearranged for `model`.

    Args:
        path: timm's state dict (`.safetensors`, `.pth`) or the authors' `.npz`, older or newer.
        model: not changed.
        inflation: `central_frame` puts the patch embedding at frame t // 2 of the tubelet and zeros elsewhere;
            `average` puts a t-th of it at every frame.

    Raises:
        UserError: the file holds no image ViT.
    """
    image = _read_image_vit(path)
    state = dict(image.state)
    unused = [*image.unused, *(name for name in state if name.startswith("head."))]
    unexpected = [name for name in image.unexpected if not re.match(r"pre_logits\b|MAPHead|fc_norm", name)]
    unused += [name for name in image.unexpected if name not in unexpected]
    state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    if "encoder.positions.weight" not in state or "embed.proj.weight" not in state:
        raise UserError(f"{path} holds no image ViT: no position embedding or no patch embedding")
    rows = state["encoder.positions.weight"].shape[0]
    grid = square_grid(rows - ("encoder.cls" in state), str(path))
    if not isinstance(model.embed, TubeletEmbedding):
        raise UserError(f"model.tokenizer is {model.tokenizer!r}; allowed: 'tubelet' with {path}, an image ViT")
    state["embed.proj.weight"] = _inflate(state["embed.proj.weight"], model.embed, inflation, str(path))
    if (model.factorised or model.encoder.cls is None) and state.pop("encoder.cls", None) is not None:
        unused.append("encoder.cls")
    if model.form == "factorised_self_attention":
        state = _both_attentions(state)
    return SourceWeights(
        source=str(path),
        state=state,
        grids={"encoder.positions.weight": grid},
        unused=unused,
        unexpected=unexpected,
    )


def _read_image_vit(path: Path) -> SourceWeights:
    if path.suffix == ".npz":
        return flax_weights(read_flax(path), str(path))
    return timm_weights(read_state(path), str(path))


def timm_weights(state: dict[str, Tensor], source: str) -> SourceWeights:
    """Rename a state dict of timm's `vision_transformer` and split its qkv."""
    renamed: dict[str, Tensor] = {}
    unexpected = []
    for name, tensor in state.items():
        if name == "cls_token":
            renamed["encoder.cls"] = tensor.flatten()
        elif name == "pos_embed":
            renamed["encoder.positions.weight"] = tensor.squeeze(0)
        elif name.startswith("patch_embed.proj."):
            renamed[name.removeprefix("patch_")] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        elif match := re.fullmatch(r"(blocks\.\d+\.attn\.)qkv\.(weight|bias)", name):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.{match[1]}{part}.{match[2]}"] = rows
        elif re.fullmatch(r"blocks\.\d+\.(norm1|norm2|attn\.proj|mlp\.fc[12])\.(weight|bias)", name) or re.fullmatch(
            r"norm\.(weight|bias)", name
        ):
            renamed[f"encoder.{name}"] = tensor
        elif name.startswith("head."):
            renamed[name] = tensor
        else:
            unexpected.append(name)
    return SourceWeights(source=source, state=renamed, unexpected=unexpected)


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
