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

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.models.attention import Axes, Cache
from vidtl.models.base import VideoModel
from vidtl.models.blocks import Activation, make_blocks
from vidtl.models.embedding import CELL, Grid, Kind, Tubelet, TubeletEmbedding, tubelet_grid, uniform_frames
from vidtl.models.encoder import Encoder
from vidtl.models.pooling import PoolingKind, TokenPooling
from vidtl.models.t2t_vit import TokenModule, TokensToToken, split_grids
from vidtl.models.token_learner import Pooling, Version, check_token_learner

Form = Literal["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]
Order = Literal["time_space", "space_time"]

_AXES: dict[str, tuple[Axes, ...]] = {
    "joint": ("joint",),
    "factorised_encoder": ("space",),
    "factorised_self_attention time_space": ("time", "space"),
    "factorised_self_attention space_time": ("space", "time"),
    "factorised_dot_product": ("time_and_space",),
}
"""Axes of the attentions in a block of each form, and order where there are two."""


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
        pooling: PoolingKind = "mean",
        pooling_width: int | None = None,
        pooled_norm_eps: float | None = None,
        temporal_input: Literal["pooled", "tokens", "places"] = "pooled",
        attention_order: Order = "time_space",
        positions: Kind = "learned",
        position_std: float = 0.02,
        num_registers: int = 0,
        activation: Activation = "gelu",
        norm_eps: float = 1e-6,
        input_norm: bool = False,
        layer_scale: float = 0.0,
        attention_softcap: float = 0.0,
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
        background: bool = False,
        num_classes: int,
    ) -> None:
        super().__init__(num_frames + background, frame_size, num_classes)
        self.background = background
        self.form, self.tokenizer, self.pooling, self.temporal_input = form, tokenizer, pooling, temporal_input
        self.factorised = form == "factorised_encoder"
        uniform = tubelet_sampling == "uniform"
        fits = tokenizer == "tubelet" and not uniform and not any(side % CELL for side in tubelet[1:])
        allowed = f"true with model.tokenizer tubelet alone, of sides that are multiples of {CELL} pixels"
        require(fits or not background, "clip.background", background, allowed)
        self.grid = _checked_grid(tokenizer, tubelet, uniform, num_frames, frame_size)
        self.register_buffer("frames", uniform_frames(num_frames, self.grid.t) if uniform else None, persistent=False)
        if tokenizer == "tubelet":
            self.embed = TubeletEmbedding((1, *tubelet[1:]) if uniform else tubelet, width, background)
        else:
            self.embed = TokensToToken(tokenizer, frame_size, width, dropout=dropout)
        pools_timesteps = self.factorised and temporal_input == "pooled"
        _check_pooling(form, pooling, temporal_input, temporal_depth, num_tokens, num_registers)
        check_token_learner(num_tokens, after_block, self.grid.h * self.grid.w, depth, fuser)
        blocks = partial(
            make_blocks, width=width, num_heads=num_heads, mlp_width=mlp_width or 4 * width, activation=activation,
            norm_eps=norm_eps, layer_scale=layer_scale, softcap=attention_softcap, dropout=dropout,
            attention_dropout=attention_dropout, stochastic_depth=stochastic_depth,
            stochastic_depth_rescale=stochastic_depth_rescale,
        )  # fmt: skip
        encoder = partial(
            Encoder, blocks, width=width, positions=positions, position_std=position_std, norm_eps=norm_eps,
            dropout=dropout,
        )  # fmt: skip
        has_second = self.factorised and temporal_depth > 0
        self.encoder = encoder(
            axes=_AXES[f"{form} {attention_order}"] if form == "factorised_self_attention" else _AXES[form],
            grid=self.grid._replace(t=1) if self.factorised else self.grid, depth=depth,
            class_token=pooling == "cls" and (pools_timesteps or not self.factorised), num_registers=num_registers,
            input_norm=input_norm, final_norm=pooling != "mean_norm" or (has_second and not pools_timesteps),
            num_tokens=num_tokens, after_block=after_block, learner_version=learner_version,
            learner_pooling=learner_pooling, fuser=fuser,
        )  # fmt: skip
        places = Grid(1, 1, num_tokens) if num_tokens and not fuser else self.grid  # learned: no place in space
        grid = places._replace(t=self.grid.t) if temporal_input == "tokens" else Grid(self.grid.t, 1, 1)
        self.temporal_encoder: Encoder | None = None
        if has_second:
            self.temporal_encoder = encoder(
                axes=("time",) if temporal_input == "places" else ("joint",), grid=grid, depth=temporal_depth,
                class_token=pooling == "cls", final_norm=pooling != "mean_norm" or pools_timesteps,
            )  # fmt: skip
        last = self.encoder if pools_timesteps or not self.temporal_encoder else self.temporal_encoder
        self.pool = TokenPooling(
            pooling, width, last.num_prefix, num_heads=num_heads, inner_width=pooling_width or width,
            mlp_width=mlp_width or 4 * width, activation=activation, norm_eps=pooled_norm_eps or norm_eps,
        )  # fmt: skip
        self.head = nn.Linear(width, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, input_BTCHW: Tensor, timesteps_Bt: Tensor | None = None, token_counts: tuple[int, ...] = ()
    ) -> Tensor:
        """Normalized clips `[B, T, C, H, W]` to scores `[B, K]`; `timesteps_Bt` as in `forward_tokens`.

        With `token_counts`, to the scores for each of these numbers of tokens: `[len(token_counts), B, K]`.
        """
        if token_counts:
            tokens = self.encoder.use_tokens(self.learn_tokens(input_BTCHW, timesteps_Bt), max(token_counts))
            return torch.stack([self.head(self._pool(tokens[:, :, :count])) for count in token_counts])
        logits_BK: Tensor = self.head(self.forward_features(input_BTCHW, timesteps_Bt))
        return logits_BK

    def learn_tokens(self, input_BTCHW: Tensor, timesteps_Bt: Tensor | None = None) -> Tensor:
        """Compute the tokens `[B, t, S, D]` of an elastic TokenLearner; see `forward`."""
        require(self.elastic_tokens > 0, "model.token_learner.elastic", False, "true, to choose a number of tokens")
        if timesteps_Bt is None:
            return self.encoder.learn_tokens(self.tokenize(input_BTCHW))
        return self.encoder.learn_tokens(self.embed(input_BTCHW))[timesteps_Bt, 0]

    def classify_tokens(self, state: Tensor, num_tokens: int, cache: Cache | None = None) -> Tensor:
        """Map a result of `learn_tokens` to scores `[B, K]` with its first `num_tokens`; UserError outside 1 to S.

        With a cache, at first empty, calls with growing numbers of tokens compute each token once.
        """
        logits_BK: Tensor = self.head(self._pool(self.encoder.use_tokens(state, num_tokens, cache)))
        return logits_BK

    def forward_features(self, input_BTCHW: Tensor, timesteps_Bt: Tensor | None = None) -> Tensor:
        """Compute the input of the classifier, one vector per clip: `[B, D]`."""
        return self._pool(self.forward_tokens(input_BTCHW, timesteps_Bt))

    def _pool(self, tokens_BtND: Tensor) -> Tensor:
        if not self.factorised or self.temporal_input != "pooled":
            return self.pool((self.temporal_encoder or self.encoder).sequence(tokens_BtND))  # type: ignore[no-any-return]
        vectors_BtD: Tensor = self.pool(tokens_BtND)
        if self.temporal_encoder is None:
            return vectors_BtD.mean(dim=1)
        tokens_BtND = self.temporal_encoder(rearrange(vectors_BtD, "B t D -> B t 1 D"))
        if self.pooling == "cls":
            return tokens_BtND[:, 0, 0]  # type: ignore[no-any-return]
        over_time = self.pooling if self.pooling in ("max", "sum") else "mean"
        features_BD: Tensor = reduce(tokens_BtND, "B t N D -> B D", over_time)
        return features_BD

    @property
    def timestep_frames(self) -> np.ndarray | None:
        """Frames of a clip that each timestep sees in the spatial encoder: int64 [t, L]; None in the other forms.

        No position over time, class token or norm joins the timesteps before the temporal encoder, whatever its input:
        equal frames have equal tokens at any place of any clip. Not so in the other forms, and with a background.
        """
        if not self.factorised or self.background:
            return None
        frames = np.arange(self.clip_shape[0]) if self.frames is None else self.frames.cpu().numpy()
        return frames.reshape(self.grid.t, -1)

    def forward_tokens(self, input_BTCHW: Tensor, timesteps_Bt: Tensor | None = None) -> Tensor:
        """Compute the tokens before pooling over space, `[B, t, P + N, D]`, P of them prefix tokens.

        In the joint form with prefix tokens, and in a temporal encoder with a class token, t is 1 and N all tokens.

        With `timesteps_Bt`, int64, the input is distinct timesteps of clips, `[U, L, C, H, W]` (see `timestep_frames`),
        each of which is encoded once, and clip b has the timesteps `timesteps_Bt[b]`.
        """
        if timesteps_Bt is None:
            tokens_BtND: Tensor = self.encoder(self.tokenize(input_BTCHW))
        else:
            tokens_BtND = self.encoder(self.embed(input_BTCHW))[timesteps_Bt, 0]
        if self.temporal_encoder is not None and self.temporal_input != "pooled":
            tokens_BtND = self.temporal_encoder(tokens_BtND)
        return tokens_BtND

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
        return [["embed", *first], *blocks, [*norm, "pool", "head"]]

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


def _check_pooling(
    form: Form, pooling: str, temporal_input: str, temporal_depth: int, num_tokens: int, num_registers: int
) -> None:
    allowed = "other values than first with TokenLearner, whose tokens have no place"
    require(pooling != "first" or not num_tokens, "model.pooling", pooling, allowed)
    allowed = f"pooled without a temporal encoder (form {form})"
    has_second = form == "factorised_encoder" and temporal_depth > 0
    require(temporal_input == "pooled" or has_second, "model.temporal_input", temporal_input, allowed)
    allowed = "other values than cls with temporal_input places, where each place is a sequence"
    require(temporal_input != "places" or pooling != "cls", "model.pooling", pooling, allowed)
    allowed = f"0 with temporal_input {temporal_input}, which needs tokens of the grid alone"
    require(temporal_input == "pooled" or not num_registers, "model.num_registers", num_registers, allowed)
