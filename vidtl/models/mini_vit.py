"""The small image ViT of the CIFAR-10 TokenLearner study (S. Paul and A. R. Gosthipati, keras.io, 2021).

Unlike in ViViT's blocks, each head is as wide as the tokens, and the MLP ends in a second GELU. Resizing to 52 x 52,
cropping to 48 x 48 and mirroring, part of the study's model, belong to the data path here.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.models.attention import Attention, Cache
from vidtl.models.base import VideoModel
from vidtl.models.blocks import Mlp, TransformerBlock
from vidtl.models.embedding import PositionEmbedding, Tubelet, cut_tubelets, tubelet_grid
from vidtl.models.t2t_vit import SMALL_IMAGE_SPLITS, TokenModule, TokensToToken
from vidtl.models.token_learner import Pooling, TokenLearner, Version, check_token_learner, run_blocks


class MiniViT(VideoModel):
    """Mini-ViT on images, which are clips of one frame: `input_BTCHW [B, 1, 3, H, W] -> logits_BK`.

    Patches, positions, dropout, blocks with a TokenLearner between two of them, norm, mean over tokens, linear layer. A
    tokens-to-token module in place of patches (no part of the study) gives as many tokens.

    Arguments are the keys of `model` and `clip`, described in `vidtl/config`; those of TokenLearner as in `ViViT`.
    UserError: clips of more than one frame, patches that do not fill a frame, or a TokenLearner that does not fit.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        head_width: int = 128,
        mlp_width: int = 256,
        tokenizer: Literal["tubelet"] | TokenModule = "tubelet",
        tubelet: Tubelet = (1, 6, 6),
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        num_tokens: int = 0,
        after_block: int = 3,
        learner_version: Version = "v1",
        learner_pooling: Pooling = "mean",
        num_frames: int = 1,
        frame_size: tuple[int, int] = (48, 48),
        num_classes: int,
    ) -> None:
        super().__init__(num_frames, frame_size, num_classes)
        require(num_frames == 1, "clip.num_frames", num_frames, "1 with model.architecture mini_vit, an image model")
        patches = tokenizer == "tubelet"
        require(tubelet[0] == 1 and (patches or tubelet == (1, 6, 6)), "model.tubelet", list(tubelet),
                "[1, height, width]" if patches else f"[1, 6, 6] with tokenizer {tokenizer}")  # fmt: skip
        grid = tubelet_grid(tubelet, num_frames, frame_size)
        check_token_learner(num_tokens, after_block, grid.size, depth)
        self.tubelet = tubelet
        self.num_tokens = num_tokens
        self.after_block = after_block if num_tokens else depth
        self.proj: nn.Module
        if tokenizer == "tubelet":
            self.proj = nn.Linear(3 * tubelet[1] * tubelet[2], width)
            # Keras' fans of a convolution count the kernel's places on both sides.
            _glorot_uniform_(self.proj, tubelet[1] * tubelet[2] * (3 + width))
        else:
            self.proj = TokensToToken(tokenizer, frame_size, width, dropout=dropout, splits=SMALL_IMAGE_SPLITS)
        self.positions = PositionEmbedding(grid, width)
        nn.init.uniform_(self.positions.weight, -0.05, 0.05)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            attention = _keras_attention(width, num_heads, head_width, attention_dropout)
            self.blocks.append(TransformerBlock(width, attention, _keras_mlp(width, mlp_width, dropout)))
        self.token_learner = (
            TokenLearner(width, num_tokens, learner_version, learner_pooling, dropout) if num_tokens else None
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        _glorot_uniform_(self.head, width + num_classes)

    def forward(self, input_BTCHW: Tensor, token_counts: tuple[int, ...] = ()) -> Tensor:
        """Images `[B, 1, 3, H, W]` to scores `[B, K]`, or, as in `ViViT`, `[len(token_counts), B, K]`."""
        tokens_B1ND = self._use_tokens(self.learn_tokens(input_BTCHW), max(token_counts, default=self.num_tokens))
        if not token_counts:
            return self._classify(tokens_B1ND)
        require(self.elastic_tokens > 0, "model.token_learner.elastic", False, "true, to choose a number of tokens")
        return torch.stack([self._classify(tokens_B1ND[:, :, :count]) for count in token_counts])

    def learn_tokens(self, input_BTCHW: Tensor) -> Tensor:
        """Compute the learned tokens `[B, 1, S, D]`, as in `ViViT`; all tokens without TokenLearner."""
        tokens_B1ND = self._before_token_learner(input_BTCHW)
        return self.token_learner(tokens_B1ND, self.positions.grid[1:]) if self.token_learner else tokens_B1ND

    def classify_tokens(self, state: Tensor, num_tokens: int, cache: Cache | None = None) -> Tensor:
        """Map a result of `learn_tokens` to scores `[B, K]` with its first `num_tokens`, as in `ViViT`."""
        return self._classify(self._use_tokens(state, num_tokens, cache))

    def layers(self) -> list[list[str]]:
        """Tokenizer, blocks, head; TokenLearner belongs to the block that follows it."""
        blocks = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        if self.token_learner is not None:
            blocks[min(self.after_block, len(blocks) - 1)].append("token_learner")
        return [["proj", "positions"], *blocks, ["norm", "head"]]

    def repeated_blocks(self) -> list[nn.Module]:
        """Layers of a tokens-to-token module, and blocks."""
        layers: Iterable[nn.Module] = self.proj.layers if isinstance(self.proj, TokensToToken) else []
        return [*layers, *self.blocks]

    def token_maps(self, input_BTCHW: Tensor) -> Tensor:
        """Return TokenLearner's weights before pooling, `[B, 1, S, h, w]`; UserError in a model without it."""
        if self.token_learner is None:
            raise UserError("model.token_learner.num_tokens is 0; allowed: 1 or more, to have token maps")
        grid = self.positions.grid
        maps_B1SN = self.token_learner.maps(self._before_token_learner(input_BTCHW), grid[1:], self.num_tokens)
        return rearrange(maps_B1SN, "B t S (h w) -> B t S h w", h=grid.h)  # type: ignore[no-any-return]

    def _use_tokens(self, state: Tensor, num_tokens: int, cache: Cache | None = None) -> Tensor:
        sizes = None
        if self.token_learner:
            state, sizes = self.token_learner.select(state, num_tokens, self.positions.grid[1:])
        return run_blocks(self.blocks[self.after_block :], self.norm, state, sizes, cache)

    def _classify(self, tokens_B1ND: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(reduce(tokens_B1ND, "B 1 N D -> B D", "mean"))
        return logits_BK

    def _before_token_learner(self, input_BTCHW: Tensor) -> Tensor:
        self.check_input(input_BTCHW)
        pixels = cut_tubelets(input_BTCHW, self.tubelet) if isinstance(self.proj, nn.Linear) else input_BTCHW
        tokens_B1ND: Tensor = self.dropout(self.positions(self.proj(pixels)))
        for block in self.blocks[: self.after_block]:
            tokens_B1ND = block(tokens_B1ND)
        return tokens_B1ND


def _keras_attention(width: int, num_heads: int, head_width: int, attention_dropout: float) -> Attention:
    attention = Attention(width, num_heads, head_width=head_width, attention_dropout=attention_dropout)
    # Keras holds these kernels as [D, heads, head width] and [heads, head width, D] and multiplies both fans by the
    # first axis, so that its Glorot start of the former is several times narrower than that of the same matrix.
    for layer in (attention.q, attention.k, attention.v):
        _glorot_uniform_(layer, width * (num_heads + head_width))
    _glorot_uniform_(attention.proj, num_heads * (head_width + width))
    return attention


def _keras_mlp(width: int, mlp_width: int, dropout: float) -> Mlp:
    for _ in range(2):  # the first only advances the random generator: a seed keeps the weights it has always given
        mlp = Mlp(width, mlp_width, width, dropout=dropout, activate_output=True)
    for layer in (mlp.fc1, mlp.fc2):
        nn.init.zeros_(layer.bias)
    return mlp


def _glorot_uniform_(layer: nn.Linear, sum_of_fans: int) -> None:
    """Draw weights from ±√(6 / (fan in + fan out)), set biases to 0."""
    limit = (6 / sum_of_fans) ** 0.5
    nn.init.uniform_(layer.weight, -limit, limit)
    nn.init.zeros_(layer.bias)
