"""Transformer blocks, their MLP, and stochastic depth.

Source: ViViT (Arnab et al., 2021) and its reference code: pre-norm, LayerNorm with epsilon 1e-6, tanh-approximated
GELU, biases everywhere.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vidtl.models.attention import Attention


class Mlp(nn.Module):
    """Linear, GELU, dropout, linear, dropout: `[..., D] -> [..., out]`. Kernels Xavier-uniform, biases N(0, 1e-6).

    Args:
        width: D.
        hidden: width between the layers.
        out: width of the result.
        dropout: after each layer.
        gelu: `tanh` is the approximation that ViViT was trained with, `none` the exact function.
        activate_output: a second GELU after the second layer.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int,
        *,
        dropout: float = 0.0,
        gelu: Literal["tanh", "none"] = "tanh",
        activate_output: bool = False,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate=gelu)
        self.fc2 = nn.Linear(hidden, out)
        self.dropout = nn.Dropout(dropout)
        self.activate_output = activate_output
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(self.act(self.fc1(tokens)))
        out: Tensor = self.dropout(self.act(self.fc2(hidden)) if self.activate_output else self.fc2(hidden))
        return out


class StochasticDepth(nn.Module):
    """Drop a residual branch for whole examples (axis 0) in training; each call draws anew.

    `rescale` divides what is kept by the probability of keeping it, as timm does and ViViT's code does not.
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
    """Return the stochastic depth of each block: 0 at the first, `probability` at the last (p · l / (L - 1))."""
    return [probability * block / max(depth - 1, 1) for block in range(depth)]


class TransformerBlock(nn.Module):
    """x + Attention(Norm(x)), then x + MLP(Norm(x)): `[B, t, N, D] -> [B, t, N, D]`."""

    def __init__(
        self,
        width: int,
        attention: Attention,
        mlp: Mlp,
        *,
        drop_path: float = 0.0,
        rescale: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path, rescale)

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        tokens_BtND = tokens_BtND + self.drop_path(self.attn(self.norm1(tokens_BtND)))
        out_BtND: Tensor = tokens_BtND + self.drop_path(self.mlp(self.norm2(tokens_BtND)))
        return out_BtND


class FactorisedSelfAttentionBlock(nn.Module):
    """Attention over one axis, attention over the other, MLP: `[B, t, N, D] -> [B, t, N, D]` (ViViT model 3).

    Each of the three has a norm and a residual connection. Stochastic depth draws for each (the reference code has none
    here).
    """

    def __init__(
        self,
        width: int,
        attention_over_time: Attention,
        attention_over_space: Attention,
        mlp: Mlp,
        *,
        order: Literal["time_space", "space_time"],
        drop_path: float = 0.0,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.order = order
        self.norm_time = nn.LayerNorm(width, eps=1e-6)
        self.attn_time = attention_over_time
        self.norm_space = nn.LayerNorm(width, eps=1e-6)
        self.attn_space = attention_over_space
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path, rescale)

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        time, space = (self.norm_time, self.attn_time), (self.norm_space, self.attn_space)
        for norm, attention in (time, space) if self.order == "time_space" else (space, time):
            tokens_BtND = tokens_BtND + self.drop_path(attention(norm(tokens_BtND)))
        out_BtND: Tensor = tokens_BtND + self.drop_path(self.mlp(self.norm_mlp(tokens_BtND)))
        return out_BtND
