"""ViViT (Arnab et al., 2021) in its four forms, with TokenLearner (Ryoo et al., 2021) after any block of any form.

    clip -> tubelets -> encoder [-> one vector per timestep -> temporal encoder] -> one vector -> logits

| paper   | form                        | tokens that attend to each other                                     |
|---------|-----------------------------|----------------------------------------------------------------------|
| model 1 | `joint`                     | all of the clip                                                      |
| model 2 | `factorised_encoder`        | those of a timestep; then, in a second encoder, one vector of each   |
| model 3 | `factorised_self_attention` | in each block over time and over space, one after the other          |
| model 4 | `factorised_dot_product`    | half of the heads over time, half over space                         |
"""

from collections.abc import Iterable
from functools import partial
from typing import Literal

from einops import reduce
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.checks import require
from vidtl.config.model import model_arguments
from vidtl.models.base import VideoModel
from vidtl.models.blocks import Order
from vidtl.models.embedding import Grid, Kind, Tubelet, TubeletEmbedding, tubelet_grid, uniform_frames
from vidtl.models.encoder import Encoder, Form
from vidtl.models.t2t_vit import TokenModule, TokensToToken, split_grids
from vidtl.models.token_learner import Pooling, Version, check_token_learner


class ViViT(VideoModel):
    """Video Vision Transformer: `input_BTCHW -> logits_BK`.

    `encoder` is the only encoder, or the spatial one of the factorised encoder; `temporal_encoder` is the second one of
    the factorised encoder, else `None`. The classifier starts at 0, as in the reference code.

    Arguments are the keys of `model` and `clip`, described in `vidtl/config`. `num_tokens` (0 for none), `after_block`
    and `fuser` are those of `model.token_learner`, `learner_version` and `learner_pooling` its `version` and `pooling`.

    Raises:
        UserError: settings that contradict each other or the clip.
    """

    frames: Tensor | None
    embed: nn.Module

    def __init__(
        self,
        *,
        form: Form = "factorised_encoder",
        width: int,
        depth: int,
        num_heads: int,
        mlp_width: int | None = None,
        temporal_depth: int = 4,
        tokenizer: Literal["tubelet"] | TokenModule = "tubelet",
        tubelet: Tubelet = (2, 16, 16),
        tubelet_sampling: Literal["tubelet", "uniform"] = "tubelet",
        pooling: Literal["cls", "mean", "max", "sum"] = "mean",
        temporal_input: Literal["pooled", "tokens"] = "pooled",
        attention_order: Order = "time_space",
        positions: Kind = "learned",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        stochastic_depth_rescale: bool = False,
        num_tokens: int = 0,
        after_block: int = 3,
        learner_version: Version = "v1.1",
        learner_pooling: Pooling = "sum",
        fuser: bool = False,
        num_frames: int,
        frame_size: tuple[int, int],
        num_classes: int,
    ) -> None:
        super().__init__(num_frames, frame_size, num_classes)
        self.form, self.tokenizer, self.pooling, self.temporal_input = form, tokenizer, pooling, temporal_input
        self.factorised = form == "factorised_encoder"
        uniform = tubelet_sampling == "uniform"
        self.grid = _checked_grid(tokenizer, tubelet, uniform, num_frames, frame_size)
        self.register_buffer("frames", uniform_frames(num_frames, self.grid.t) if uniform else None, persistent=False)
        if tokenizer == "tubelet":
            self.embed = TubeletEmbedding((1, *tubelet[1:]) if uniform else tubelet, width)
        else:
            self.embed = TokensToToken(tokenizer, frame_size, width, dropout=dropout)
        _check_pooling(form, pooling, temporal_input, self.factorised and temporal_depth > 0, num_tokens)
        check_token_learner(num_tokens, after_block, self.grid.h * self.grid.w, depth, fuser)
        encoder = partial(
            Encoder, width=width, num_heads=num_heads, mlp_width=mlp_width or 4 * width, positions=positions,
            attention_order=attention_order, dropout=dropout, attention_dropout=attention_dropout,
            stochastic_depth=stochastic_depth, stochastic_depth_rescale=stochastic_depth_rescale,
        )  # fmt: skip
        pools_timesteps = self.factorised and temporal_input == "pooled"
        self.encoder = encoder(
            form=form, grid=self.grid._replace(t=1) if self.factorised else self.grid, depth=depth,
            class_token=pooling == "cls" and (pools_timesteps or not self.factorised), num_tokens=num_tokens,
            after_block=after_block, learner_version=learner_version, learner_pooling=learner_pooling, fuser=fuser,
        )  # fmt: skip
        grid = Grid(self.grid.t, 1, num_tokens) if num_tokens and not fuser else self.grid  # learned: no place in space
        grid = Grid(grid.t, 1, 1) if pools_timesteps else grid
        self.temporal_encoder: Encoder | None = None
        if self.factorised and temporal_depth > 0:
            self.temporal_encoder = encoder(form="joint", grid=grid, depth=temporal_depth, class_token=pooling == "cls")
        self.head = nn.Linear(width, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalized clips `[B, T, C, H, W]` to scores `[B, K]`."""
        logits_BK: Tensor = self.head(self.forward_features(input_BTCHW))
        return logits_BK

    def forward_features(self, input_BTCHW: Tensor) -> Tensor:
        """Compute the input of the classifier, one vector per clip: `[B, D]`."""
        tokens_BtND = self.encoder(self.tokenize(input_BTCHW))
        pooling = self.pooling
        if self.factorised and self.temporal_input == "pooled":
            is_cls = pooling == "cls"
            tokens_BtND = tokens_BtND[:, :, :1] if is_cls else reduce(tokens_BtND, "B t N D -> B t 1 D", pooling)
        if self.temporal_encoder is not None:
            tokens_BtND = self.temporal_encoder(tokens_BtND)
        elif self.factorised:
            pooling = "mean"
        features_BD: Tensor = (
            tokens_BtND[:, 0, 0] if pooling == "cls" else reduce(tokens_BtND, "B t N D -> B D", pooling)
        )
        return features_BD

    def tokenize(self, input_BTCHW: Tensor) -> Tensor:
        """Turn clips into tokens `[B, t, N, D]`, without positions; UserError for clips of another shape."""
        self.check_input(input_BTCHW)
        tokens_BtND: Tensor = self.embed(input_BTCHW if self.frames is None else input_BTCHW[:, self.frames])
        return tokens_BtND

    def layers(self) -> list[list[str]]:
        """Embedding, spatial blocks, temporal blocks, head; parts between two encoders belong to a block."""
        first, *blocks, norm = self.encoder.layers("encoder")
        if self.temporal_encoder is not None:
            blocks[-1] += norm
            start, *later, norm = self.temporal_encoder.layers("temporal_encoder")
            later[0] += start
            blocks += later
        return [["embed", *first], *blocks, [*norm, "head"]]

    def repeated_blocks(self) -> list[nn.Module]:
        """Layers of a tokens-to-token module, and the blocks of both encoders."""
        layers: Iterable[nn.Module] = self.embed.layers if isinstance(self.embed, TokensToToken) else []
        return [*layers, *self.encoder.blocks, *(self.temporal_encoder.blocks if self.temporal_encoder else [])]

    def token_maps(self, input_BTCHW: Tensor) -> Tensor:
        """Return the first TokenLearner's weights before pooling, `[B, t, S, h, w]`.

        Map t belongs to the frames of tubelet t. Between 0 and 1 in version v1; a distribution over h w in v1.1.
        """
        return self.encoder.token_maps(self.tokenize(input_BTCHW))


def _checked_grid(
    tokenizer: str, tubelet: Tubelet, uniform: bool, num_frames: int, frame_size: tuple[int, int]
) -> Grid:
    """Return the grid of tokens; UserErrors for tubelets that do not fit the clip or the tokenizer."""
    length, *patch = tubelet
    if tokenizer == "tubelet":
        return tubelet_grid(tubelet, num_frames, frame_size)
    fits = patch == [16, 16] and (uniform or length == 1) and num_frames % length == 0
    allowed = (
        f"[1, 16, 16] with {tokenizer} or, with tubelet_sampling uniform, [length, 16, 16], whose length divides "
        "clip.num_frames"
    )
    require(fits, "model.tubelet", list(tubelet), allowed)
    return Grid(num_frames // length, *split_grids(frame_size)[-1])


def _check_pooling(form: Form, pooling: str, temporal_input: str, has_temporal_encoder: bool, num_tokens: int) -> None:
    has_place = pooling != "cls" or form in ("joint", "factorised_encoder")
    allowed = f"mean, max or sum with form {form}, where a class token has no place in the grid"
    require(has_place, "model.pooling", pooling, allowed)
    allowed = f"mean, max or sum with TokenLearner, which has no class token (num_tokens is {num_tokens})"
    require(pooling != "cls" or not num_tokens, "model.pooling", pooling, allowed)
    allowed = f"pooled without a temporal encoder (form {form})"
    require(temporal_input == "pooled" or has_temporal_encoder, "model.temporal_input", temporal_input, allowed)


def build_vivit(config: ModelConfig, clip: ClipConfig, num_classes: int) -> ViViT:
    """Build the model of a resolved configuration."""
    return ViViT(**model_arguments(config, clip), num_classes=num_classes)
