"""A stack of transformer blocks over a grid of tokens, with TokenLearner between two of them."""

from functools import partial
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.blocks import (
    Attention,
    Axes,
    FactorisedSelfAttentionBlock,
    Mlp,
    Order,
    StochasticDepth,
    TransformerBlock,
    drop_path_ramp,
)
from vidtl.models.embedding import Grid, Kind, PositionEmbedding
from vidtl.models.token_learner import Pooling, TokenFuser, TokenLearner, Version

Form = Literal["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]
AXES: dict[Form, Axes] = {"joint": "joint", "factorised_encoder": "space", "factorised_dot_product": "time_and_space"}
"""Axes of the forms whose blocks have one attention."""


class Encoder(nn.Module):
    """Class token, positions, blocks, final norm: `[B, t, N, D] -> [B, t, N', D]`.

    N' is N, or S after a TokenLearner without fuser, or N + 1 with a class token, which is token 0. In the joint form a
    class token belongs to no timestep, so that the grid becomes a single timestep of 1 + t N tokens.

    `grid` is the number of tokens along time, height and width; its t is 1 where all timesteps share their positions.
    `class_token` prepends a class token. The other arguments are those of `ViViT`.
    """

    def __init__(
        self,
        *,
        form: Form,
        grid: Grid,
        width: int,
        depth: int,
        num_heads: int,
        mlp_width: int,
        class_token: bool,
        positions: Kind = "learned",
        attention_order: Order = "time_space",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        stochastic_depth_rescale: bool = False,
        num_tokens: int = 0,
        after_block: int = 0,
        learner_version: Version = "v1.1",
        learner_pooling: Pooling = "sum",
        fuser: bool = False,
    ) -> None:
        super().__init__()
        self.joint = form == "joint"
        self.grid = grid
        self.cls = nn.Parameter(torch.zeros(width)) if class_token else None
        self.positions = PositionEmbedding(grid, width, positions, class_token)
        self.dropout = nn.Dropout(dropout)
        attention = partial(Attention, width, num_heads, dropout=dropout, attention_dropout=attention_dropout)
        mlp = partial(Mlp, width, mlp_width, width, dropout=dropout)
        self.blocks = nn.ModuleList()
        for rate in drop_path_ramp(stochastic_depth, depth):
            drop_path = StochasticDepth(rate, stochastic_depth_rescale)
            if form == "factorised_self_attention":
                over_time, over_space = attention(axes="time"), attention(axes="space")
                block: nn.Module = FactorisedSelfAttentionBlock(
                    width, over_time, over_space, mlp(), attention_order, drop_path
                )
            else:
                block = TransformerBlock(width, attention(axes=AXES[form]), mlp(), drop_path)
            self.blocks.append(block)
        self.after_block = after_block if num_tokens else depth
        self.token_learners = nn.ModuleList()
        self.token_fusers = nn.ModuleList()
        stages = (depth - after_block if fuser else 1) if num_tokens else 0
        for _ in range(stages):
            self.token_learners.append(TokenLearner(width, num_tokens, learner_version, learner_pooling, dropout))
            if fuser:
                self.token_fusers.append(TokenFuser(width, num_tokens, dropout))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def layers(self, prefix: str) -> list[list[str]]:
        """Return the names of the parts by depth: before the blocks, each block, the norm."""
        blocks = [[f"{prefix}.blocks.{i}"] for i in range(len(self.blocks))]
        for i in range(len(self.token_learners)):
            block = min(self.after_block + i, len(self.blocks) - 1)
            blocks[block] += [f"{prefix}.token_learners.{i}", f"{prefix}.token_fusers.{i}"]
        return [[f"{prefix}.cls", f"{prefix}.positions"], *blocks, [f"{prefix}.norm"]]

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        tokens = self._before_token_learner(tokens_BtND)
        later_blocks = self.blocks[self.after_block :]
        if self.token_fusers:
            for learner, block, fuser in zip(self.token_learners, later_blocks, self.token_fusers, strict=True):
                learned = block(learner(tokens, self.grid[1:]))
                tokens = tokens + fuser(learned, tokens)
        else:
            for learner in self.token_learners:
                tokens = learner(tokens, self.grid[1:])
            for block in later_blocks:
                tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def token_maps(self, tokens_BtND: Tensor) -> Tensor:
        """Return the maps `[B, t, S, h, w]` of the first TokenLearner, before pooling."""
        if not self.token_learners:
            raise UserError("model.token_learner.num_tokens is 0; allowed: 1 or more, to have token maps")
        learner = self.token_learners[0]
        assert isinstance(learner, TokenLearner)
        maps_BtSN = learner.maps(self._before_token_learner(tokens_BtND), self.grid[1:])
        maps_BtShw: Tensor = rearrange(maps_BtSN, "B t S (h w) -> B t S h w", h=self.grid.h)
        return maps_BtShw

    def _before_token_learner(self, tokens_BtND: Tensor) -> Tensor:
        if self.cls is not None:
            if self.joint:
                tokens_BtND = rearrange(tokens_BtND, "B t N D -> B 1 (t N) D")
            cls = repeat(self.cls, "D -> B t 1 D", B=tokens_BtND.shape[0], t=tokens_BtND.shape[1])
            tokens_BtND = torch.cat([cls.to(tokens_BtND.dtype), tokens_BtND], dim=2)
        tokens_BtND = self.dropout(self.positions(tokens_BtND))
        for block in self.blocks[: self.after_block]:
            tokens_BtND = block(tokens_BtND)
        return tokens_BtND
