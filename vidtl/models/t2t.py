"""The tokens-to-token module of T2T-ViT (Yuan et al., ICCV 2021): overlapping splits, a small transformer after each.

Source: the paper, section 3.1, and the authors' code, whose orders and constants are kept wherever the paper leaves
them open. The module turns single frames into tokens of T2T-ViT, or of ViViT and the mini-ViT in place of tubelets.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.blocks import Mlp

TokenModule = Literal["t2t_performer", "t2t_transformer"]


class Split(NamedTuple):
    """Overlapping squares of `kernel` pixels, `stride` apart."""

    kernel: int
    stride: int
    padding: int

    def length(self, side: int) -> int:
        """Return the number of squares along a side of the image."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))
"""The paper's [7, 3, 3] with overlaps [3, 1, 1]: together one token per 16 x 16 pixels."""

SMALL_IMAGE_SPLITS = (Split(7, 3, 2), Split(3, 2, 1))
"""The paper's first and last, the first with a shorter stride, for small images: one token per 6 x 6 pixels."""


class PerformerTokenLayer(nn.Module):
    """Attention of linear cost that changes the width: `[B, N, D] -> [B, N, S]` (Performer, Choromanski et al., 2021).

    One head with positive random features φ(u) = exp(W u - |u|² / 2) / √m, m = S / 2 and W frozen, orthogonal, times
    √m; queries and keys are not scaled. The skip connection starts from the values, because D is not S. Everything runs
    in float32 even under autocast: exp of a difference of large numbers loses its digits in bf16 and its range in fp16,
    where the 1e-8 of the division is 0. The released recipes have dropout here and nowhere else.
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
        self.mlp = Mlp(out_width, out_width, out_width, gelu="none")

    def forward(self, tokens_BND: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(tokens_BND)).unsqueeze(1).chunk(3, dim=-1)
        tokens_BNS = (v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))).squeeze(1)
        out_BNS: Tensor = tokens_BNS + self.mlp(self.norm2(tokens_BNS))
        return out_BNS


class TokensToToken(nn.Module):
    """Turn each frame into tokens: `input_BTCHW -> tokens_BtND` with t = T and N = h * w.

    A token layer after every split but the last, then a projection. The values of a square run channel by channel, then
    row by row.

    Args:
        kind: attention of the token layers.
        frame_size: height and width in pixels; need not be multiples of the product of the strides.
        width: D.
        token_width: width inside the module, 64 in every published model.
        dropout: inside the Performer layers only.
        splits: the published ones give one token per 16 x 16 pixels.

    Raises:
        UserError: frames too small for one token.
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
            image = rearrange(layer(_cut(image, split)), "B (h w) S -> B S h w", h=height, w=width)
        tokens = self.proj(_cut(image, self.splits[-1]))
        tokens_BtND: Tensor = rearrange(tokens, "(B T) N D -> B T N D", B=input_BTCHW.shape[0])
        return tokens_BtND


def split_grids(frame_size: tuple[int, int], splits: Sequence[Split] = SPLITS) -> list[tuple[int, int]]:
    """Return height and width of the grid after each split; the last is that of the tokens."""
    sizes = [frame_size]
    for split in splits:
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


def start_linear(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and set biases to 0, in linear layers only."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
