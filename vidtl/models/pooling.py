"""From tokens to one vector: a token, a reduction, or attention with a learned query.

Sources: mean before a norm: VideoMAE (Tong et al., 2022). Attention: SigLIP (Zhai et al., 2023; with an MLP) and
VideoPrism (Zhao et al., 2024), whose files have the query as a product of a vector, a matrix and scales.
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.models.blocks import Activation, Mlp

PoolingKind = Literal["cls", "first", "mean", "max", "sum", "mean_norm", "attention", "attention_mlp"]


class TokenPooling(nn.Module):
    """Reduce the tokens of a sequence to one: `[..., P + L, D] -> [..., D]`.

    Args:
        kind: `cls` or `first` for the first token, a class token or one of the grid; a reduction over the L tokens;
            `mean_norm` for a norm of the mean; `attention` for attention with a learned query and a norm, or, with
            `attention_mlp`, a residual MLP behind a norm.
        width: D.
        num_prefix: P, tokens that only `cls` sees; the others are of the grid.
        inner_width: total width of the heads.
    """

    def __init__(
        self,
        kind: PoolingKind,
        width: int,
        num_prefix: int = 0,
        *,
        num_heads: int = 1,
        inner_width: int = 1,
        mlp_width: int = 1,
        activation: Activation = "gelu",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.num_prefix = num_prefix
        self.num_heads = num_heads
        if kind in ("mean_norm", "attention", "attention_mlp"):
            self.norm = nn.LayerNorm(width, eps=norm_eps)
        if kind.startswith("attention"):
            self.query = nn.Parameter(torch.empty(inner_width))
            self.k = nn.Linear(width, inner_width)
            self.v = nn.Linear(width, inner_width)
            self.proj = nn.Linear(inner_width, width)
            nn.init.normal_(self.query, std=0.02)
            for layer in (self.k, self.v, self.proj):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if kind == "attention_mlp":
            self.mlp = Mlp(width, mlp_width, width, activation=activation)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.kind in ("cls", "first"):
            return tokens[..., 0, :]
        tokens = tokens[..., self.num_prefix :, :]
        if not self.kind.startswith("attention"):
            pooled: Tensor = reduce(tokens, "... L D -> ... D", self.kind.removesuffix("_norm"))
            return self.norm(pooled) if self.kind == "mean_norm" else pooled  # type: ignore[no-any-return]
        query = rearrange(self.query, "(H d) -> H 1 d", H=self.num_heads).expand(*tokens.shape[:-2], -1, -1, -1)
        k, v = (rearrange(part(tokens), "... L (H d) -> ... H L d", H=self.num_heads) for part in (self.k, self.v))
        mixed = F.scaled_dot_product_attention(query.to(k.dtype), k, v)
        pooled = self.proj(rearrange(mixed, "... H 1 d -> ... (H d)"))
        normed = self.norm(pooled)
        return pooled + self.mlp(normed) if self.kind == "attention_mlp" else normed  # type: ignore[no-any-return]
