"""A stack of transformer blocks over a grid of tokens, with TokenLearner between two of them."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from vidtl.config import TokenLearnerConfig, ViViTConfig
from vidtl.errors import UserError
from vidtl.models.attention import DotProductAttention, JointAttention, SelfAttention, SpatialAttention
from vidtl.models.blocks import BlockConfig, FactorisedSelfAttentionBlock, TransformerBlock, drop_path_ramp
from vidtl.models.dropout import Dropout
from vidtl.models.position import Grid, PositionEmbedding
from vidtl.models.token_learner import TokenFuser, TokenLearner

ATTENTIONS: dict[str, type[SelfAttention]] = {
    "joint": JointAttention,
    "factorised_encoder": SpatialAttention,
    "factorised_dot_product": DotProductAttention,
}


class Encoder(nn.Module):
    """Class token, positions, blocks, final norm: `[B, t, N, D] -> [B, t, N', D]`.

    N' is N; or S after a TokenLearner without fuser; or N + 1 with a class token, which then is token 0. In the joint
    form a class token belongs to no timestep, so the grid becomes a single timestep of 1 + t N tokens.

    Args:
        config: the model's settings with every size filled in.
        form: which tokens attend to each other.
        grid: tokens along time, height and width; t = 1 where all timesteps share their positions.
        depth: number of blocks.
        class_token: whether a class token is prepended.
        token_learner: the stage between two blocks; `None` or 0 tokens for none.
    """

    def __init__(
        self,
        config: ViViTConfig,
        form: str,
        grid: Grid,
        depth: int,
        class_token: bool,
        token_learner: TokenLearnerConfig | None = None,
    ) -> None:
        super().__init__()
        self.joint = form == "joint"
        self.grid = grid
        self.cls = nn.Parameter(torch.zeros(config.width)) if class_token else None
        self.positions = PositionEmbedding(grid, config.width, config.positions, class_token)
        self.dropout = Dropout(config.dropout)
        self.blocks = _build_blocks(config, form, depth)
        self.after_block = depth
        self.token_learners = nn.ModuleList()
        self.token_fusers = nn.ModuleList()
        if token_learner is not None and token_learner.num_tokens:
            self._add_token_learners(config, token_learner)
        self.norm = nn.LayerNorm(config.width, eps=1e-6)

    def _add_token_learners(self, config: ViViTConfig, stage: TokenLearnerConfig) -> None:
        self.after_block = stage.after_block
        for _ in range(len(self.blocks) - stage.after_block if stage.fuser else 1):
            self.token_learners.append(
                TokenLearner(config.width, stage.num_tokens, stage.version, stage.pooling, config.dropout)
            )
            if stage.fuser:
                self.token_fusers.append(TokenFuser(config.width, stage.num_tokens, config.dropout))

    def layers(self, prefix: str) -> list[list[str]]:
        """Names of the parts by depth: what comes before the blocks, each block, the norm."""
        layers = [
            [f"{prefix}.cls", f"{prefix}.positions"],
            *([f"{prefix}.blocks.{i}"] for i in range(len(self.blocks))),
        ]
        for i in range(len(self.token_learners)):
            block = min(self.after_block + i, len(self.blocks) - 1)
            layers[1 + block] += [f"{prefix}.token_learners.{i}", f"{prefix}.token_fusers.{i}"]
        return [*layers, [f"{prefix}.norm"]]

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
        """Maps `[B, t, S, h, w]` of the first TokenLearner, before pooling."""
        if not self.token_learners:
            raise UserError(
                "model.vivit.token_learner.num_tokens is 0; allowed: 1 or more, for a model that has token maps"
            )
        learner = self.token_learners[0]
        assert isinstance(learner, TokenLearner)
        maps_BtSN = learner.maps(self._before_token_learner(tokens_BtND), self.grid[1:])
        maps_BtShw: Tensor = rearrange(maps_BtSN, "B t S (h w) -> B t S h w", h=self.grid.h)
        return maps_BtShw

    def _before_token_learner(self, tokens_BtND: Tensor) -> Tensor:
        tokens = self.dropout(self.positions(self._prepend_cls(tokens_BtND)))
        for block in self.blocks[: self.after_block]:
            tokens = block(tokens)
        assert isinstance(tokens, Tensor)
        return tokens

    def _prepend_cls(self, tokens_BtND: Tensor) -> Tensor:
        if self.cls is None:
            return tokens_BtND
        if self.joint:
            tokens_BtND = rearrange(tokens_BtND, "B t N D -> B 1 (t N) D")
        cls = repeat(self.cls, "D -> B t 1 D", B=tokens_BtND.shape[0], t=tokens_BtND.shape[1])
        with_cls: Tensor = torch.cat([cls.to(tokens_BtND.dtype), tokens_BtND], dim=2)
        return with_cls


def _build_blocks(config: ViViTConfig, form: str, depth: int) -> nn.ModuleList:
    """`depth` blocks of a form, stochastic depth rising over them."""
    block_config = BlockConfig(
        width=config.width,
        num_heads=config.num_heads,
        mlp_width=config.mlp_width,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        drop_path_rescale=config.stochastic_depth_rescale,
    )
    ramp = drop_path_ramp(config.stochastic_depth, depth)
    if form == "factorised_self_attention":
        order = config.attention_order
        return nn.ModuleList(FactorisedSelfAttentionBlock(block_config, order, drop_path) for drop_path in ramp)
    blocks = nn.ModuleList()
    for drop_path in ramp:
        attention = ATTENTIONS[form](
            config.width, config.num_heads, dropout=config.dropout, attention_dropout=config.attention_dropout
        )
        blocks.append(TransformerBlock(block_config, attention, drop_path))
    return blocks
