"""T2T-ViT (Yuan et al., ICCV 2021): images become tokens by overlapping splits, each followed by a small transformer.

Source: the paper, sections 3.1 and 3.2, and the authors' code, whose sizes, orders and constants are kept wherever the
paper leaves them open. The token module alone also serves as a tokeniser of single frames (`TokensToToken`).
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange, repeat
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, T2TViTConfig
from vidtl.errors import UserError
from vidtl.models.attention import SelfAttention, attend
from vidtl.models.blocks import BlockConfig, Mlp, TransformerBlock, drop_path_ramp
from vidtl.models.hub import VideoModel
from vidtl.models.position import Grid, PositionEmbedding, sincos_1d

TokenModule = Literal["performer", "transformer"]


class Split(NamedTuple):
    """An overlapping cut into squares of `kernel` pixels, `stride` apart."""

    kernel: int
    stride: int
    padding: int

    def length(self, side: int) -> int:
        """Squares along a side of so many pixels."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))
"""The paper's [7, 3, 3] with overlaps [3, 1, 1]: together one token per 16 x 16 pixels."""


class T2TSize(NamedTuple):
    """Numbers behind a name such as T2T-ViT-14 (paper, table 2)."""

    width: int
    depth: int
    num_heads: int
    mlp_ratio: int


SIZES: dict[int, T2TSize] = {
    7: T2TSize(256, 7, 4, 2),
    10: T2TSize(256, 10, 4, 2),
    12: T2TSize(256, 12, 4, 2),
    14: T2TSize(384, 14, 6, 3),
    19: T2TSize(448, 19, 7, 3),
    24: T2TSize(512, 24, 8, 3),
}


class PerformerTokenLayer(nn.Module):
    """Attention of linear cost (Performer, Choromanski et al., 2021) that also changes the width: `[B, N, D] -> [B, N,
    S]`.

    One head with positive random features φ(u) = exp(W u - |u|² / 2) / √m, m = S / 2 and W frozen, orthogonal, times
    √m; queries and keys are not scaled. The skip connection starts from the values, because D is not S. Everything runs
    in float32 even under autocast: exp of a difference of large numbers loses its digits in bf16 and its range in fp16,
    where the 1e-8 of the division is 0. Dropout is on in the released recipes, though the rest of the model has none.
    """

    epsilon = 1e-8
    feature_ratio = 0.5

    def __init__(self, width: int, out_width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.kqv = nn.Linear(width, 3 * out_width)
        self.proj = nn.Linear(out_width, out_width)
        self.norm2 = nn.LayerNorm(out_width)
        self.mlp = Mlp(out_width, out_width, out_width, gelu="none")
        self.dropout = nn.Dropout(dropout)
        num_features = int(out_width * self.feature_ratio)
        features = nn.init.orthogonal_(torch.empty(num_features, out_width)) * math.sqrt(num_features)
        self.features = nn.Parameter(features, requires_grad=False)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        with _without_autocast(tokens_BND.device):
            k, q, v = self.kqv(self.norm1(tokens_BND.float())).chunk(3, dim=-1)
            tokens_BNS = v + self.dropout(self.proj(self._attend(self._feature_map(q), self._feature_map(k), v)))
            out_BNS: Tensor = tokens_BNS + self.dropout(self.mlp(self.norm2(tokens_BNS)))
        return out_BNS

    def _feature_map(self, u_BNS: Tensor) -> Tensor:
        half_square = u_BNS.square().sum(dim=-1, keepdim=True) / 2
        return torch.exp(u_BNS @ self.features.T - half_square) / math.sqrt(self.features.shape[0])

    def _attend(self, q_BNm: Tensor, k_BNm: Tensor, v_BNS: Tensor) -> Tensor:
        weight_sum = q_BNm @ k_BNm.sum(dim=1).unsqueeze(-1)
        attended_BNS: Tensor = q_BNm @ (k_BNm.transpose(1, 2) @ v_BNS) / (weight_sum + self.epsilon)
        return attended_BNS


class TransformerTokenLayer(nn.Module):
    """Softmax attention with one head that also changes the width: `[B, N, D] -> [B, N, S]`.

    The products are scaled by D^-1/2, the width of the input rather than of the head (the authors' code), and the skip
    connection starts from the values, because D is not S.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * out_width, bias=False)
        self.proj = nn.Linear(out_width, out_width)
        self.norm2 = nn.LayerNorm(out_width)
        self.mlp = Mlp(out_width, out_width, out_width, gelu="none")

    def forward(self, tokens_BND: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(tokens_BND)), "B N (part S) -> part B 1 N S", part=3)
        tokens_BNS = (v + self.proj(attend(q, k, v, scale=self.scale))).squeeze(1)
        out_BNS: Tensor = tokens_BNS + self.mlp(self.norm2(tokens_BNS))
        return out_BNS


class TokensToToken(nn.Module):
    """Tokens of each frame by itself: `input_BTCHW -> tokens_BtND` with t = T and N = h * w, one token per 16 x 16
    pixels.

    Split, token layer, split, token layer, split, projection. A square's values run channel by channel, then row by
    row.

    Args:
        kind: which attention the token layers have.
        frame_size: height and width in pixels; need not be multiples of 16.
        width: D.
        token_width: width inside the module, 64 in every published model.
        dropout: inside the Performer layers only.

    Raises:
        UserError: frames too small for one token, or input of another frame size.
    """

    def __init__(
        self, kind: TokenModule, frame_size: tuple[int, int], width: int, token_width: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.frame_size = frame_size
        self.grids = _split_sizes(frame_size)
        widths = [3 * SPLITS[0].kernel ** 2, token_width * SPLITS[1].kernel ** 2]
        if kind == "performer":
            layers: list[nn.Module] = [PerformerTokenLayer(dim, token_width, dropout) for dim in widths]
        else:
            layers = [TransformerTokenLayer(dim, token_width) for dim in widths]
        self.layers = nn.ModuleList(layers)
        self.proj = nn.Linear(token_width * SPLITS[2].kernel ** 2, width)
        self.apply(_start_linear)

    @property
    def frame_grid(self) -> tuple[int, int]:
        """Tokens along height and width."""
        return self.grids[-1]

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        if tuple(input_BTCHW.shape[2:]) != (3, *self.frame_size):
            raise UserError(
                f"input has shape {list(input_BTCHW.shape)}; allowed: [B, T, C, H, W] with C, H, W = "
                f"{[3, *self.frame_size]}, the frames that the model was built for"
            )
        image = rearrange(input_BTCHW, "B T C H W -> (B T) C H W")
        for split, (height, width), layer in zip(SPLITS[:2], self.grids[:2], self.layers, strict=True):
            image = rearrange(layer(_cut(image, split)), "B (h w) S -> B S h w", h=height, w=width)
        tokens = self.proj(_cut(image, SPLITS[2]))
        tokens_BtND: Tensor = rearrange(tokens, "(B T) N D -> B T N D", B=input_BTCHW.shape[0])
        return tokens_BtND


class T2TViT(VideoModel):
    """T2T-ViT on images, which are clips of one frame: `input_BTCHW [B, 1, 3, H, W] -> logits_BK`.

    The token module, a class token, fixed sines and cosines over the sequence (class token: position 0), pre-norm
    blocks with LayerNorm epsilon 1e-5, exact GELU and no bias on queries, keys and values. Linear layers start from a
    normal distribution of standard deviation 0.02.

    The position table belongs to the image size. A new model of any size computes its own; weights of another size
    bring theirs, resized (`vidtl.models.weights.t2t`), since in a longer row of tokens the same number stands for
    another place. The table and the Performer's features are parameters without gradient, as in the released files, and
    count as such.

    Raises:
        UserError: clips of more than one frame, frames too small for one token, or input of another shape.
    """

    def __init__(self, model_config: ModelConfig, clip_config: ClipConfig, num_classes: int) -> None:
        super().__init__(model_config, clip_config, num_classes)
        if clip_config.num_frames != 1:
            raise UserError(
                f"clip.num_frames is {clip_config.num_frames}; allowed: 1 with model.architecture t2t_vit, "
                "which sees images"
            )
        config = resolve_t2t_sizes(model_config.t2t_vit)
        self.tokens = TokensToToken(
            config.token_module, clip_config.frame_size, config.width, config.token_width, config.token_dropout
        )
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(config.width), std=0.02))
        grid = Grid(1, *self.tokens.frame_grid)
        self.positions = PositionEmbedding(grid, config.width, "learned", class_token=True)
        self.positions.weight = nn.Parameter(sincos_1d(grid.size + 1, config.width), requires_grad=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = _build_blocks(config)
        self.norm = nn.LayerNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, num_classes)
        self.blocks.apply(_start_linear)
        _start_linear(self.head)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalised images `[B, 1, 3, H, W]` to scores `[B, K]`."""
        if input_BTCHW.shape[1] != 1:
            raise UserError(f"input has {input_BTCHW.shape[1]} frames; allowed: 1, since T2T-ViT sees images")
        tokens_BtND = self.tokens(input_BTCHW)
        cls = repeat(self.cls, "D -> B 1 1 D", B=tokens_BtND.shape[0]).to(tokens_BtND.dtype)
        tokens = self.dropout(self.positions(torch.cat([cls, tokens_BtND], dim=2))).squeeze(1)
        for block in self.blocks:
            tokens = block(tokens)
        logits_BK: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits_BK


def resolve_t2t_sizes(config: T2TViTConfig) -> T2TViTConfig:
    """The same settings with every size that was left at 0 taken from the paper's number."""
    size = SIZES[config.size]
    width = config.width or size.width
    return replace(
        config,
        width=width,
        depth=config.depth or size.depth,
        num_heads=config.num_heads or size.num_heads,
        mlp_width=config.mlp_width or size.mlp_ratio * width,
    )


def _build_blocks(config: T2TViTConfig) -> nn.ModuleList:
    block = BlockConfig(
        width=config.width,
        num_heads=config.num_heads,
        mlp_width=config.mlp_width,
        dropout=config.dropout,
        drop_path_rescale=True,
        norm_eps=1e-5,
        gelu="none",
    )
    dropouts = {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
    return nn.ModuleList(
        TransformerBlock(block, SelfAttention(config.width, config.num_heads, qkv_bias=False, **dropouts), drop_path)
        for drop_path in drop_path_ramp(config.stochastic_depth, config.depth)
    )


def _split_sizes(frame_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of the grid after each split."""
    sizes = [frame_size]
    for split in SPLITS:
        sizes.append((split.length(sizes[-1][0]), split.length(sizes[-1][1])))
    if min(sizes[-1]) < 1:
        raise UserError(f"clip.frame_size is {list(frame_size)}; allowed: 4 pixels or more with T2T tokens")
    return sizes[1:]


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # the meta device, on which costs are counted, has no autocast to switch off


def _cut(image_BCHW: Tensor, split: Split) -> Tensor:
    columns = F.unfold(image_BCHW, split.kernel, padding=split.padding, stride=split.stride)
    return columns.transpose(1, 2)


def _start_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
