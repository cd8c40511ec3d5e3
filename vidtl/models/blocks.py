"""The transformer block that every model here is made of, its MLP, and stochastic depth.

Source: ViViT (Arnab et al., 2021) and its reference code: pre-norm, LayerNorm with epsilon 1e-6,
tanh-approximated GELU, biases everywhere.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vidtl.models.attention import SelfAttention, SpatialAttention, TemporalAttention
from vidtl.models.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What the blocks of one encoder have in common."""

    width: int
    num_heads: int
    mlp_width: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rescale: bool = False
    norm_eps: float = 1e-6
    gelu: Literal["tanh", "none"] = "tanh"
    """`tanh` is the approximation that ViViT was trained with, `none` the exact function."""


class Mlp(nn.Module):
    """Linear, GELU, dropout, linear, dropout: `[..., D] -> [..., out]`. Kernels Xavier-uniform, biases N(0, 1e-6)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int,
        *,
        dropout: float = 0.0,
        gelu: Literal["tanh", "none"] = "tanh",
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate=gelu)
        self.fc2 = nn.Linear(hidden, out)
        self.dropout = Dropout(dropout)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(self.act(self.fc1(tokens)))
        out: Tensor = self.dropout(self.fc2(hidden))
        return out


class StochasticDepth(nn.Module):
    """Drops a residual branch for whole examples (axis 0) in training; each call draws anew.

    ViViT's code does not divide what is kept by the chance of keeping; timm does (`rescale`).
    """

    def __init__(self, probability: float, rescale: bool = False) -> None:
        super().__init__()
        self.probability = probability
        self.rescale = rescale

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return branch
        keep = 1.0 - self.probability
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = (torch.rand(shape, device=branch.device) < keep).to(branch.dtype)
        return branch * (kept / keep if self.rescale else kept)


def drop_path_ramp(probability: float, depth: int) -> list[float]:
    """Stochastic depth of each block: 0 at the first, `probability` at the last (p · l / (L - 1), ViViT's code)."""
    return [probability * block / max(depth - 1, 1) for block in range(depth)]


class TransformerBlock(nn.Module):
    """x + Attention(Norm(x)), then x + MLP(Norm(x)), for any shape `[B, ..., D]` that `attention` accepts."""

    def __init__(self, config: BlockConfig, attention: SelfAttention, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp_width, config.width, dropout=config.dropout, gelu=config.gelu)
        self.drop_path = StochasticDepth(drop_path, config.drop_path_rescale)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        out: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return out


class FactorisedSelfAttentionBlock(nn.Module):
    """Attention over one axis of the grid, attention over the other, MLP; each with norm and residual (ViViT model 3).

    `[B, t, N, D] -> [B, t, N, D]`. Stochastic depth draws for each of the three branches (the reference code has
    none here).
    """

    def __init__(self, config: BlockConfig, order: Literal["time_space", "space_time"], drop_path: float = 0.0) -> None:
        super().__init__()
        self.order = order
        self.norm_time = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn_time = TemporalAttention(
            config.width, config.num_heads, dropout=config.dropout, attention_dropout=config.attention_dropout
        )
        self.norm_space = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn_space = SpatialAttention(
            config.width, config.num_heads, dropout=config.dropout, attention_dropout=config.attention_dropout
        )
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp_width, config.width, dropout=config.dropout, gelu=config.gelu)
        self.drop_path = StochasticDepth(drop_path, config.drop_path_rescale)

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        time, space = (self.norm_time, self.attn_time), (self.norm_space, self.attn_space)
        for norm, attention in (time, space) if self.order == "time_space" else (space, time):
            tokens_BtND = tokens_BtND + self.drop_path(attention(norm(tokens_BtND)))
        out_BtND: Tensor = tokens_BtND + self.drop_path(self.mlp(self.norm_mlp(tokens_BtND)))
        return out_BtND
