"""ViViT (Arnab et al., 2021) in its four forms, with TokenLearner (Ryoo et al., 2021) after any block of any form.

    clip -> tubelets -> encoder [-> one vector per timestep -> temporal encoder] -> one vector -> logits

| paper   | form                        | which tokens attend to each other                                    |
|---------|-----------------------------|----------------------------------------------------------------------|
| model 1 | `joint`                     | all of the clip                                                      |
| model 2 | `factorised_encoder`        | those of a timestep; then, in a second encoder, one vector of each   |
| model 3 | `factorised_self_attention` | in each block over time and over space, one after the other          |
| model 4 | `factorised_dot_product`    | half of the heads over time, half over space                         |
"""

from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, ViViTConfig
from vidtl.errors import UserError
from vidtl.models.encoder import Encoder
from vidtl.models.hub import VideoModel
from vidtl.models.position import Grid
from vidtl.models.t2t import T2TEmbedding
from vidtl.models.tubelet import TubeletEmbedding
from vidtl.models.variants import resolve_sizes


class ViViT(VideoModel):
    """Video Vision Transformer: `input_BTCHW -> logits_BK`.

    `encoder` is the only encoder, or the spatial one of the factorised encoder; `temporal_encoder` is the second one of
    the factorised encoder, else `None`. The classifier starts at 0, as in the reference code.

    Raises:
        UserError: settings that contradict each other or the clip.
    """

    def __init__(self, model_config: ModelConfig, clip_config: ClipConfig, num_classes: int) -> None:
        super().__init__(model_config, clip_config, num_classes)
        config = resolve_sizes(model_config.vivit)
        self.config = config
        self.factorised = config.form == "factorised_encoder"
        embedding = TubeletEmbedding if config.tokeniser == "tubelet" else T2TEmbedding
        self.embed = embedding(config, clip_config, config.width)
        grid = self.embed.grid
        _check(config, grid)
        pools_timesteps = self.factorised and config.temporal_input == "pooled"
        self.encoder = Encoder(
            config,
            config.form,
            grid._replace(t=1) if self.factorised else grid,
            config.depth,
            class_token=config.pooling == "cls" and (pools_timesteps or not self.factorised),
            token_learner=config.token_learner,
        )
        self.temporal_encoder = None
        if self.factorised and config.temporal_depth:
            self.temporal_encoder = Encoder(
                config,
                "joint",
                Grid(grid.t, 1, 1) if pools_timesteps else _grid_after(config, grid),
                config.temporal_depth,
                class_token=config.pooling == "cls",
            )
        self.head = nn.Linear(config.width, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalised clips `[B, T, C, H, W]` to scores `[B, K]`."""
        logits_BK: Tensor = self.head(self.forward_features(input_BTCHW))
        return logits_BK

    def forward_features(self, input_BTCHW: Tensor) -> Tensor:
        """One vector per clip, `[B, D]`: what the classifier sees."""
        tokens_BtND = self.encoder(self.embed(input_BTCHW))
        if not self.factorised:
            return self._pool_clip(tokens_BtND)
        if self.config.temporal_input == "pooled":
            tokens_BtND = self._pool_timesteps(tokens_BtND)
        if self.temporal_encoder is None:
            return reduce(tokens_BtND, "B t 1 D -> B D", "mean")  # type: ignore[no-any-return]
        return self._pool_clip(self.temporal_encoder(tokens_BtND))

    def layers(self) -> list[list[str]]:
        """Embedding, spatial blocks, temporal blocks, head; what stands between two encoders is part of a block."""
        first, *blocks, norm = self.encoder.layers("encoder")
        if self.temporal_encoder is not None:
            blocks[-1] += norm
            start, *later, norm = self.temporal_encoder.layers("temporal_encoder")
            later[0] += start
            blocks += later
        return [["embed", *first], *blocks, [*norm, "head"]]

    def token_maps(self, input_BTCHW: Tensor) -> Tensor:
        """Where the first TokenLearner looks: weights `[B, t, S, h, w]` before pooling.

        Map t belongs to the frames of tubelet t. Between 0 and 1 in version v1; a distribution over h w in v1.1.
        """
        return self.encoder.token_maps(self.embed(input_BTCHW))

    def _pool_timesteps(self, tokens_BtND: Tensor) -> Tensor:
        """`[B, t, N, D] -> [B, t, 1, D]`."""
        if self.config.pooling == "cls":
            return tokens_BtND[:, :, :1]
        pooled_BtD = reduce(tokens_BtND, "B t N D -> B t D", self.config.pooling)
        return rearrange(pooled_BtD, "B t D -> B t 1 D")  # type: ignore[no-any-return]

    def _pool_clip(self, tokens_BtND: Tensor) -> Tensor:
        """`[B, t, N, D] -> [B, D]`."""
        if self.config.pooling == "cls":
            return tokens_BtND[:, 0, 0]
        return reduce(tokens_BtND, "B t N D -> B D", self.config.pooling)  # type: ignore[no-any-return]


def _grid_after(config: ViViTConfig, grid: Grid) -> Grid:
    """Tokens that leave the spatial encoder; learned tokens have no place in space."""
    stage = config.token_learner
    return Grid(grid.t, 1, stage.num_tokens) if stage.num_tokens and not stage.fuser else grid


def _check(config: ViViTConfig, grid: Grid) -> None:
    """UserErrors for settings that are each fine but not together."""
    if config.width % config.num_heads:
        raise UserError(
            f"model.vivit.width is {config.width}; allowed: multiples of model.vivit.num_heads, {config.num_heads}"
        )
    if config.pooling == "cls" and config.form in ("factorised_self_attention", "factorised_dot_product"):
        raise UserError(
            f"model.vivit.pooling is 'cls'; allowed: 'mean', 'max' or 'sum' with form {config.form}, "
            "where a class token would have no place in the grid"
        )
    has_temporal_encoder = config.form == "factorised_encoder" and config.temporal_depth > 0
    if config.temporal_input == "tokens" and not has_temporal_encoder:
        raise UserError(
            "model.vivit.temporal_input is 'tokens'; allowed: 'pooled' where no temporal encoder can take tokens "
            f"(form {config.form}, temporal_depth {config.temporal_depth})"
        )
    if config.token_learner.num_tokens:
        _check_token_learner(config, grid)


def _check_token_learner(config: ViViTConfig, grid: Grid) -> None:
    stage, key = config.token_learner, "model.vivit.token_learner"
    if config.pooling == "cls":
        raise UserError(
            "model.vivit.pooling is 'cls'; allowed: 'mean', 'max' or 'sum' with TokenLearner, which has no class token "
            f"({key}.num_tokens is {stage.num_tokens}; 0 builds the model without it)"
        )
    if stage.num_tokens > grid.h * grid.w:
        raise UserError(
            f"{key}.num_tokens is {stage.num_tokens} but a timestep has only {grid.h}x{grid.w} = {grid.h * grid.w} "
            f"tokens; allowed: 0 to {grid.h * grid.w}"
        )
    last = config.depth - 1 if stage.fuser else config.depth
    if stage.after_block > last:
        raise UserError(
            f"{key}.after_block is {stage.after_block} but the model has {config.depth} blocks; allowed: 0 to {last}"
            + (" with a fuser, which needs a block to wrap" if stage.fuser else "")
        )
