"""T2T-ViT (Yuan et al., ICCV 2021) on images: the tokens-to-token module, then a narrow transformer with a class token.

The module alternates overlapping splits and small transformers; it also serves ViViT and the mini-ViT in place of
tubelets. Source: the paper, sections 3.1 and 3.2, and the authors' code.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange, repeat
from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.models.attention import Attention
from vidtl.models.base import VideoModel
from vidtl.models.blocks import Mlp, StochasticDepth, TransformerBlock, drop_path_ramp
from vidtl.models.embedding import Grid, PositionEmbedding, sincos_1d

TokenModule = Literal["t2t_performer", "t2t_transformer"]


class Split(NamedTuple):
    """Overlapping squares of `kernel` pixels, `stride` apart."""

    kernel: int
    stride: int
    padding: int

    def length(self, side: int) -> int:
        """Return the number of squares along a side of the image."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def cut(self, image_BCHW: Tensor) -> Tensor:
        """Return the values of each square, channel by channel, then row by row: `[B, N, C * kernel * kernel]`."""
        return F.unfold(image_BCHW, self.kernel, padding=self.padding, stride=self.stride).transpose(1, 2)


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))
"""The paper's [7, 3, 3] with overlaps [3, 1, 1]: together one token per 16 x 16 pixels."""

SMALL_IMAGE_SPLITS = (Split(7, 3, 2), Split(3, 2, 1))
"""First and last split of the paper, the first with a shorter stride, for small images: one token per 6 x 6 pixels."""


class PerformerTokenLayer(nn.Module):
    """Attention of linear cost that changes the width: `[B, N, D] -> [B, N, S]` (Performer, Choromanski et al., 2021).

    One head with positive random features φ(u) = exp(W u - |u|² / 2) / √m, m = S / 2 and W frozen, orthogonal, times
    √m; queries and keys are not scaled. The skip connection starts from the values, because D is not S. Everything runs
    in float32 even under autocast: exp of a difference of large numbers loses its digits in bf16 and its range in fp16.
    """

    def __init__(self, width: int, out_width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.kqv = nn.Linear(width, 3 * out_width)
        self.proj = nn.Linear(out_width, out_width)
        self.norm2 = nn.LayerNorm(out_width)
        self.mlp = Mlp(out_width, out_width, out_width)
        self.dropout = nn.Dropout(dropout)
        features = nn.init.orthogonal_(torch.empty(out_width // 2, out_width)) * math.sqrt(out_width // 2)
        self.features = nn.Parameter(features, requires_grad=False)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        device = tokens_BND.device.type  # the meta device, on which costs are counted, has no autocast to disable
        has_autocast = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
            k, q, v_BNS = self.kqv(self.norm1(tokens_BND.float())).chunk(3, dim=-1)
            q_BNm, k_BNm = self._feature_map(q), self._feature_map(k)
            weight_sum = q_BNm @ k_BNm.sum(dim=1).unsqueeze(-1)
            attended_BNS = q_BNm @ (k_BNm.transpose(1, 2) @ v_BNS) / (weight_sum + 1e-8)
            tokens_BNS = v_BNS + self.dropout(self.proj(attended_BNS))
            out_BNS: Tensor = tokens_BNS + self.dropout(self.mlp(self.norm2(tokens_BNS)))
        return out_BNS

    def _feature_map(self, u_BNS: Tensor) -> Tensor:
        half_square = u_BNS.square().sum(dim=-1, keepdim=True) / 2
        return torch.exp(u_BNS @ self.features.T - half_square) / math.sqrt(self.features.shape[0])


class TransformerTokenLayer(nn.Module):
    """Softmax attention with one head that changes the width: `[B, N, D] -> [B, N, S]`.

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
        self.mlp = Mlp(out_width, out_width, out_width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(tokens_BND)).unsqueeze(1).chunk(3, dim=-1)
        tokens_BNS = (v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))).squeeze(1)
        out_BNS: Tensor = tokens_BNS + self.mlp(self.norm2(tokens_BNS))
        return out_BNS


class TokensToToken(nn.Module):
    """Turn each frame into tokens: `input_BTCHW -> tokens_BtND` with t = T and N = h * w.

    A token layer after every split but the last, then a projection to D. `frame_size`, height and width in pixels, need
    not be multiples of the strides; `token_width` is that inside the module, `dropout` that of Performer layers. The
    published `splits` give one token per 16 x 16 pixels. UserError: frames too small for one token.
    """

    def __init__(
        self,
        kind: TokenModule,
        frame_size: tuple[int, int],
        width: int,
        token_width: int = 64,
        dropout: float = 0.1,
        splits: Sequence[Split] = SPLITS,
    ) -> None:
        super().__init__()
        self.splits = tuple(splits)
        self.grids = split_grids(frame_size, splits)
        channels = [3] + [token_width] * (len(splits) - 1)
        *widths, last_width = (dim * split.kernel**2 for dim, split in zip(channels, splits, strict=True))
        if kind == "t2t_performer":
            layers: list[nn.Module] = [PerformerTokenLayer(dim, token_width, dropout) for dim in widths]
        else:
            layers = [TransformerTokenLayer(dim, token_width) for dim in widths]
        self.layers = nn.ModuleList(layers)
        self.proj = nn.Linear(last_width, width)
        self.apply(start_linear)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        image = rearrange(input_BTCHW, "B T C H W -> (B T) C H W")
        for split, (height, width), layer in zip(self.splits[:-1], self.grids[:-1], self.layers, strict=True):
            image = rearrange(layer(split.cut(image)), "B (h w) S -> B S h w", h=height, w=width)
        tokens = self.proj(self.splits[-1].cut(image))
        tokens_BtND: Tensor = rearrange(tokens, "(B T) N D -> B T N D", B=input_BTCHW.shape[0])
        return tokens_BtND


def split_grids(frame_size: tuple[int, int], splits: Sequence[Split] = SPLITS) -> list[tuple[int, int]]:
    """Return height and width of the grid after each split; the last is that of the tokens."""
    sizes = [frame_size]
    for split in splits:
        sizes.append((split.length(sizes[-1][0]), split.length(sizes[-1][1])))
    require(min(sizes[-1]) >= 1, "clip.frame_size", list(frame_size), "4 pixels or more with T2T tokens")
    return sizes[1:]


def start_linear(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and set biases to 0, in linear layers only."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class T2TViT(VideoModel):
    """T2T-ViT on images, which are clips of one frame: `input_BTCHW [B, 1, 3, H, W] -> logits_BK`.

    The token module, a class token, fixed sines and cosines over the sequence (class token: position 0), pre-norm
    blocks with LayerNorm epsilon 1e-5, exact GELU and no bias on queries, keys and values. Linear layers start from
    N(0, 0.02). Position table and Performer features are parameters without gradient, as in the released files.

    Arguments are the keys of `model` and `clip`, described in `vidtl/config`. UserError: clips of more than one frame,
    frames too small for one token, or heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_width: int,
        tokenizer: TokenModule = "t2t_performer",
        token_width: int = 64,
        token_dropout: float = 0.1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        num_frames: int = 1,
        frame_size: tuple[int, int],
        num_classes: int,
    ) -> None:
        super().__init__(num_frames, frame_size, num_classes)
        require(num_frames == 1, "clip.num_frames", num_frames, "1 with model.architecture t2t_vit, an image model")
        self.tokens = TokensToToken(tokenizer, frame_size, width, token_width, token_dropout)
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        grid = Grid(1, *self.tokens.grids[-1])
        self.positions = PositionEmbedding(grid, width, num_prefix=1, resizing="bicubic")
        self.positions.weight = nn.Parameter(sincos_1d(grid.size + 1, width), requires_grad=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList()
        for rate in drop_path_ramp(stochastic_depth, depth):
            attention = Attention(
                width, num_heads, qkv_bias=False, dropout=dropout, attention_dropout=attention_dropout
            )
            mlp = Mlp(width, mlp_width, width, dropout=dropout)
            self.blocks.append(TransformerBlock(width, attention, mlp, StochasticDepth(rate, rescale=True), 1e-5))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, num_classes)
        self.blocks.apply(start_linear)
        start_linear(self.head)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalized images `[B, 1, 3, H, W]` to scores `[B, K]`."""
        self.check_input(input_BTCHW)
        tokens_B1ND = self.tokens(input_BTCHW)
        cls = repeat(self.cls, "D -> B 1 1 D", B=tokens_B1ND.shape[0]).to(tokens_B1ND.dtype)
        tokens_B1ND = self.dropout(self.positions(torch.cat([cls, tokens_B1ND], dim=2)))
        for block in self.blocks:
            tokens_B1ND = block(tokens_B1ND)
        logits_BK: Tensor = self.head(self.norm(tokens_B1ND[:, 0, 0]))
        return logits_BK

    def layers(self) -> list[list[str]]:
        """Token module, blocks, head."""
        blocks = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        return [["tokens", "cls", "positions"], *blocks, ["norm", "head"]]

    def repeated_blocks(self) -> list[nn.Module]:
        """Layers of the token module, which see the longest sequences, and blocks."""
        return [*self.tokens.layers, *self.blocks]
