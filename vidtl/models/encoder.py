"""A stack of transformer blocks over a grid of tokens, with TokenLearner between two of them."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.models.attention import Axes, Cache
from vidtl.models.embedding import Grid, Kind, PositionEmbedding
from vidtl.models.token_learner import Pooling, TokenFuser, TokenLearner, Version, run_blocks


class Encoder(nn.Module):
    """Class token, registers, positions, blocks, final norm: `[B, t, N, D] -> [B, t, P + N', D]`.

    N' is N, or S after a TokenLearner without fuser. The P prefix tokens come first: the class token, then registers,
    which TokenLearner leaves alone. Where all tokens of the clip attend to each other, they belong to no timestep, so
    that with them the grid becomes a single timestep of P + t N' tokens; else each timestep has P of them.

    Args:
        blocks: builds the blocks, see `make_blocks`; depth, axes of their attentions and P are still to be given.
        axes: those of the attentions of each block.
        grid: tokens along time, height and width; t is 1 where all timesteps share their positions, h and w are 1 where
            all places do.
    The other arguments are those of `ViViT`.
    """

    def __init__(
        self,
        blocks: Callable[..., nn.ModuleList],
        *,
        axes: tuple[Axes, ...],
        grid: Grid,
        width: int,
        depth: int,
        class_token: bool = False,
        num_registers: int = 0,
        positions: Kind = "learned",
        position_std: float = 0.02,
        norm_eps: float = 1e-6,
        input_norm: bool = False,
        final_norm: bool = True,
        dropout: float = 0.0,
        num_tokens: int = 0,
        after_block: int = 0,
        learner_version: Version = "v1.1",
        learner_pooling: Pooling = "sum",
        fuser: bool = False,
    ) -> None:
        super().__init__()
        self.joint = axes == ("joint",)
        self.grid = grid
        self.num_prefix = class_token + num_registers
        self.cls = nn.Parameter(torch.zeros(width)) if class_token else None
        self.registers = nn.Parameter(torch.randn(num_registers, width) * 1e-6) if num_registers else None
        self.positions = PositionEmbedding(grid, width, positions, self.num_prefix, std=position_std)
        self.dropout = nn.Dropout(dropout)
        self.input_norm = nn.LayerNorm(width, eps=norm_eps) if input_norm else nn.Identity()
        self.blocks = blocks(depth, axes, num_prefix=self.num_prefix)
        self.num_tokens = num_tokens
        self.after_block = after_block if num_tokens else depth
        self.token_learners = nn.ModuleList()
        self.token_fusers = nn.ModuleList()
        stages = (depth - after_block if fuser else 1) if num_tokens else 0
        for _ in range(stages):
            self.token_learners.append(TokenLearner(width, num_tokens, learner_version, learner_pooling, dropout))
            if fuser:
                self.token_fusers.append(TokenFuser(width, num_tokens, dropout))
        self.norm = nn.LayerNorm(width, eps=norm_eps) if final_norm else nn.Identity()

    def layers(self, prefix: str) -> list[list[str]]:
        """Return the names of the parts by depth: before the blocks, each block, the norm."""
        blocks = [[f"{prefix}.blocks.{i}"] for i in range(len(self.blocks))]
        for i in range(len(self.token_learners)):
            block = min(self.after_block + i, len(self.blocks) - 1)
            blocks[block] += [f"{prefix}.token_learners.{i}", f"{prefix}.token_fusers.{i}"]
        first = [f"{prefix}.{part}" for part in ("cls", "registers", "positions", "input_norm")]
        return [first, *blocks, [f"{prefix}.norm"]]

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        if not self.token_fusers:
            return self.use_tokens(self.learn_tokens(tokens_BtND), self.num_tokens)
        tokens = self._before_token_learner(tokens_BtND)
        later_blocks = self.blocks[self.after_block :]
        for learner, block, fuser in zip(self.token_learners, later_blocks, self.token_fusers, strict=True):
            prefix, grid = self._split(tokens)
            prefix, learned = self._split(block(self._join(prefix, learner(grid, self.grid[1:]))))
            tokens = self._join(prefix, grid + fuser(learned, grid))
        normed: Tensor = self.norm(tokens)
        return normed

    def learn_tokens(self, tokens_BtND: Tensor) -> Tensor:
        """Compute the input of `use_tokens`, the same for any number of tokens; not with a fuser."""
        tokens = self._before_token_learner(tokens_BtND)
        for learner in self.token_learners:
            prefix, grid = self._split(tokens)
            tokens = self._join(prefix, learner(grid, self.grid[1:]))
        return tokens

    def use_tokens(self, tokens: Tensor, num_tokens: int, cache: Cache | None = None) -> Tensor:
        """Go on with the first `num_tokens` of a result of `learn_tokens`; with a cache, from where it ends."""
        sizes = None
        if not self.num_prefix:  # with it, no part of the tokens is taken
            for learner in self.token_learners:
                tokens, sizes = learner.select(tokens, num_tokens, self.grid[1:])  # type: ignore[operator]
        return run_blocks(self.blocks[self.after_block :], self.norm, tokens, sizes, cache)

    def sequence(self, tokens_BtND: Tensor) -> Tensor:
        """Return the output as one sequence, prefix tokens averaged over timesteps: `[B, P + t N', D]`."""
        prefix_BtPD, grid_BtND = self._split(tokens_BtND)
        grid_BLD: Tensor = rearrange(grid_BtND, "B t N D -> B (t N) D")
        return torch.cat([prefix_BtPD.mean(dim=1), grid_BLD], dim=1) if self.num_prefix else grid_BLD

    def token_maps(self, tokens_BtND: Tensor) -> Tensor:
        """Return the maps `[B, t, S, h, w]` of the first TokenLearner, before pooling."""
        require(len(self.token_learners) > 0, "model.token_learner.num_tokens", 0, "1 or more, to have token maps")
        learner = self.token_learners[0]
        assert isinstance(learner, TokenLearner)
        _, grid = self._split(self._before_token_learner(tokens_BtND))
        maps = learner.maps(grid, self.grid[1:], self.num_tokens)
        maps_BtShw: Tensor = rearrange(maps, "B t S (h w) -> B t S h w", h=self.grid.h)
        return maps_BtShw

    def _before_token_learner(self, tokens_BtND: Tensor) -> Tensor:
        if self.num_prefix:
            parts = [part.view(-1, part.shape[-1]) for part in (self.cls, self.registers) if part is not None]
            timesteps = 1 if self.joint else tokens_BtND.shape[1]
            prefix_BtPD = torch.cat(parts).to(tokens_BtND.dtype).expand(tokens_BtND.shape[0], timesteps, -1, -1)
            tokens_BtND = self._join(prefix_BtPD, tokens_BtND)
        tokens_BtND = self.input_norm(self.dropout(self.positions(tokens_BtND)))
        for block in self.blocks[: self.after_block]:
            tokens_BtND = block(tokens_BtND)
        return tokens_BtND

    def _split(self, tokens_BtND: Tensor) -> tuple[Tensor, Tensor]:
        """Separate the prefix tokens from those of the grid, or learned ones, of each timestep."""
        prefix_BtPD, grid_BtND = tokens_BtND.tensor_split([self.num_prefix], dim=2)
        if self.joint and self.num_prefix:
            grid_BtND = rearrange(grid_BtND, "B 1 (t N) D -> B t N D", t=self.grid.t)
        return prefix_BtPD, grid_BtND

    def _join(self, prefix_BtPD: Tensor, grid_BtND: Tensor) -> Tensor:
        if not self.num_prefix:
            return grid_BtND
        if self.joint:
            grid_BtND = rearrange(grid_BtND, "B t N D -> B 1 (t N) D")
        return torch.cat([prefix_BtPD, grid_BtND], dim=2)
