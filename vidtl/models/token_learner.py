"""TokenLearner and TokenFuser (Ryoo et al., 2021): a few learned tokens in place of many, and back.

TokenLearner computes for each of S new tokens a map of weights over N tokens; the new token is their weighted sum.
Source: the authors' code, version 1 (convolutions and sigmoid) and version 1.1 as of March 2022 (MLP and softmax).
"""

import math
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from vidtl.config.checks import require, require_choice
from vidtl.models.attention import Cache
from vidtl.models.blocks import Mlp
from vidtl.models.token_merging import average_maps, merge_maps

Version = Literal["v1", "v1.1", "average", "merge"]
Pooling = Literal["sum", "mean"]

BOTTLENECK = 64
"""Hidden width of the MLPs that compute the maps, for any width of the model (the authors' code)."""


class TokenLearner(nn.Module):
    """Learn `num_tokens` tokens from each set of N: `[..., N, D] -> [..., S, D]`.

    The maps come from normalized tokens; the weighted sum is over the tokens before the norm.

    Args:
        dim: token width D.
        num_tokens: S.
        version: `v1` computes maps by four 3x3 convolutions and a sigmoid, `v1.1` by an MLP and a softmax over the N;
            `average` and `merge` have no weights, and `forward` leaves their N tokens to `select`.
        pooling: `v1` only; `sum` over the N tokens (the authors' code) or their `mean`.
        dropout: inside the MLP of `v1.1`.

    UserError: a value that is not allowed.
    """

    def __init__(
        self, dim: int, num_tokens: int, version: Version = "v1.1", pooling: Pooling = "sum", dropout: float = 0.0
    ) -> None:
        super().__init__()
        require(num_tokens >= 1, "TokenLearner.num_tokens", num_tokens, "1 or more")
        require_choice("TokenLearner.version", version, get_args(Version))
        require_choice("TokenLearner.pooling", pooling, get_args(Pooling) if version == "v1" else ["sum"])
        self.num_tokens = num_tokens
        self.version = version
        self.pooling = pooling
        self.learned = version.startswith("v")
        if not self.learned:
            return
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        if version == "v1":
            self.score: nn.Module = _ConvScores(dim, num_tokens)
        else:
            self.score = Mlp(dim, BOTTLENECK, num_tokens, dropout=dropout, activation="gelu_tanh")

    def forward(
        self, tokens: Tensor, grid: tuple[int, int] | None = None, *, return_maps: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return tokens `[..., S, D]`, and with `return_maps` also the maps `[..., S, N]` before pooling.

        Args:
            tokens: `[..., N, D]`, row by row over the grid.
            grid: height and width with N places in `v1`; needed there unless the grid is square.
        """
        if not self.learned:
            return tokens
        maps = self.maps(tokens, grid)
        learned = maps @ tokens
        if self.version == "v1" and self.pooling == "mean":
            learned = learned / tokens.shape[-2]
        return (learned, maps) if return_maps else learned

    def select(self, state: Tensor, num_tokens: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Return the first k tokens of a result of `forward`, `[..., k, D]`, and the sizes `[..., k]` if merged."""
        allowed = f"1 to {self.num_tokens}, model.token_learner.num_tokens"
        require(1 <= num_tokens <= self.num_tokens, "num_tokens", num_tokens, allowed)
        if self.learned:
            return state[..., :num_tokens, :], None
        maps = self.maps(state, grid, num_tokens)
        return maps.to(state.dtype) @ state, 1 / maps.amax(dim=-1) if self.version == "merge" else None

    def maps(self, tokens: Tensor, grid: tuple[int, int] | None = None, num_tokens: int | None = None) -> Tensor:
        """Return weights `[..., k, N]`, k = S by default: between 0 and 1 in `v1`, else averages over the N tokens."""
        if self.version == "merge":
            return merge_maps(tokens, num_tokens or self.num_tokens)
        if self.version == "average":
            return average_maps(tokens, num_tokens or self.num_tokens, grid or _square_grid(tokens.shape[-2]))
        normed = self.norm(tokens)
        if self.version == "v1":
            scores: Tensor = self.score(normed, grid or _square_grid(tokens.shape[-2]))
            return torch.sigmoid(scores)[..., :num_tokens, :]
        return torch.softmax(self.score(normed).transpose(-2, -1), dim=-1)[..., :num_tokens, :]


def run_blocks(
    blocks: Iterable[nn.Module], norm: nn.Module, tokens: Tensor, sizes_BtN: Tensor | None, cache: Cache | None = None
) -> Tensor:
    """Apply blocks and a norm; merged tokens count by their sizes in attention and in the mean of the result (ToMe).

    A cache, also of results, spares the work for the first tokens that earlier calls have done (causal blocks).
    """
    if cache is None:
        log_sizes = () if sizes_BtN is None else (sizes_BtN.log(),)
        for block in blocks:
            tokens = block(tokens, *log_sizes)
        normed: Tensor = norm(tokens)
        return normed if sizes_BtN is None else normed * (sizes_BtN / sizes_BtN.mean(dim=-1, keepdim=True))[..., None]
    (done,) = cache.get(norm, (tokens[:, :, :0],))
    new = tokens[:, :, done.shape[2] :]
    for block in blocks:
        new = block(new, cache=cache)
    cache[norm] = (torch.cat([done, norm(new)], dim=2),)
    return cache[norm][0]


class _ConvScores(nn.Module):
    """Four 3x3 convolutions without bias, GELU between them: `[..., N, D] -> [..., S, N]`."""

    def __init__(self, dim: int, num_tokens: int) -> None:
        super().__init__()
        widths = [dim, num_tokens, num_tokens, num_tokens]
        self.convs = nn.ModuleList(nn.Conv2d(width, num_tokens, 3, padding=1, bias=False) for width in widths)
        self.act = nn.GELU(approximate="tanh")

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        places = tokens.shape[-2]
        allowed = f"height x width = {places}, the number of tokens"
        require(grid[0] * grid[1] == places, "grid", tuple(grid), allowed)
        maps = rearrange(tokens, "... (h w) D -> (...) D h w", h=grid[0], w=grid[1])
        for conv in self.convs[:-1]:
            maps = self.act(conv(maps))
        maps_SN: Tensor = self.convs[-1](maps).reshape(*tokens.shape[:-2], -1, places)
        return maps_SN


class TokenFuser(nn.Module):
    """Write S processed tokens back to N places: `[..., S, D], [..., N, D] -> [..., N, D]`.

    Each place receives a weighted sum of the mixed tokens, with weights between 0 and 1 from the features before
    TokenLearner. The caller adds the residual; the mixing matrix starts at 0. Dropout is in the MLP and on the result.
    """

    def __init__(self, dim: int, num_tokens: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mix = nn.Linear(num_tokens, num_tokens)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.norm_features = nn.LayerNorm(dim, eps=1e-6)
        self.score = Mlp(dim, BOTTLENECK, num_tokens, dropout=dropout, activation="gelu_tanh")
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, learned_SD: Tensor, features_ND: Tensor) -> Tensor:
        mixed_SD = self.norm2(self.mix(self.norm1(learned_SD).transpose(-2, -1)).transpose(-2, -1))
        weights_NS = torch.sigmoid(self.score(self.norm_features(features_ND)))
        fused_ND: Tensor = self.dropout(weights_NS @ mixed_SD)
        return fused_ND


def _square_grid(num_tokens: int) -> tuple[int, int]:
    side = math.isqrt(num_tokens)
    allowed = "a square number; any other with a grid (height, width), which the convolutions need"
    require(side * side == num_tokens, "number of tokens of TokenLearner v1", num_tokens, allowed)
    return side, side


def check_token_learner(num_tokens: int, after_block: int, places: int, depth: int, fuser: bool = False) -> None:
    """Raise a `UserError` for more tokens than a timestep has, or for a stage behind the last block."""
    if not num_tokens:
        return
    key = "model.token_learner"
    require(num_tokens <= places, f"{key}.num_tokens", num_tokens, f"0 to {places}, the tokens of a timestep")
    last = f"0 to {depth - fuser}, of {depth} blocks" + (" with a fuser, which wraps a block" if fuser else "")
    require(after_block <= depth - fuser, f"{key}.after_block", after_block, last)
