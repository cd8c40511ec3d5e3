"""T2T-ViT (Yuan et al., ICCV 2021) on images: the token module, then a narrow transformer with a class token.

Source: the paper, section 3.2, and the authors' code.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, T2TViTConfig
from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.models.attention import SelfAttention
from vidtl.models.blocks import BlockConfig, TransformerBlock, drop_path_ramp
from vidtl.models.dropout import Dropout
from vidtl.models.hub import VideoModel
from vidtl.models.position import Grid, PositionEmbedding, sincos_1d
from vidtl.models.t2t import TokensToToken, start_linear


class T2TSize(NamedTuple):
    """Numbers behind a name such as T2T-ViT-14."""

    width: int
    depth: int
    num_heads: int
    mlp_ratio: int


SIZES: dict[int, T2TSize] = {
    7: T2TSize(256, 7, 4, 2),
    10: T2TSize(256, 10, 4, 2),
    12: T2TSize(256, 12, 4, 2),
    14: T2TSize(384, 14, 6, 3),
    19: T2TSize(448, 19, 7, 3),
    24: T2TSize(512, 24, 8, 3),
}


class T2TViT(VideoModel):
    """T2T-ViT on images, which are clips of one frame: `input_BTCHW [B, 1, 3, H, W] -> logits_BK`.

    The token module, a class token, fixed sines and cosines over the sequence (class token: position 0), pre-norm
    blocks with LayerNorm epsilon 1e-5, exact GELU and no bias on queries, keys and values. Linear layers start from a
    normal distribution of standard deviation 0.02.

    The position table belongs to the image size. A new model of any size computes its own; weights of another size
    bring theirs, resized as the authors' fine-tuning does, since in a longer row of tokens the same number stands for
    another place. The table and the Performer's features are parameters without gradient, as in the released files, and
    count as such.

    Raises:
        UserError: clips of more than one frame, frames too small for one token, a width that the heads do not divide,
            or input of another shape.
    """

    def __init__(self, model_config: ModelConfig, clip_config: ClipConfig, num_classes: int) -> None:
        super().__init__(model_config, clip_config, num_classes)
        if clip_config.num_frames != 1:
            raise UserError(
                f"clip.num_frames is {clip_config.num_frames}; allowed: 1 with model.architecture t2t_vit, "
                "which sees images"
            )
        config = resolve_t2t_sizes(model_config.t2t_vit)
        require(
            config.width % config.num_heads == 0,
            "model.t2t_vit.width",
            config.width,
            f"multiples of model.t2t_vit.num_heads, {config.num_heads}",
        )
        self.tokens = TokensToToken(
            config.token_module, clip_config.frame_size, config.width, config.token_width, config.token_dropout
        )
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(config.width), std=0.02))
        grid = Grid(1, *self.tokens.frame_grid)
        self.positions = PositionEmbedding(grid, config.width, class_token=True, resizing="bicubic")
        self.positions.weight = nn.Parameter(sincos_1d(grid.size + 1, config.width), requires_grad=False)
        self.dropout = Dropout(config.dropout)
        self.blocks = _build_blocks(config)
        self.norm = nn.LayerNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, num_classes)
        self.blocks.apply(start_linear)
        start_linear(self.head)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalised images `[B, 1, 3, H, W]` to scores `[B, K]`."""
        if input_BTCHW.shape[1] != 1:
            raise UserError(f"input has {input_BTCHW.shape[1]} frames; allowed: 1, since T2T-ViT sees images")
        tokens_BtND = self.tokens(input_BTCHW)
        cls = repeat(self.cls, "D -> B 1 1 D", B=tokens_BtND.shape[0]).to(tokens_BtND.dtype)
        tokens = self.dropout(self.positions(torch.cat([cls, tokens_BtND], dim=2))).squeeze(1)
        for block in self.blocks:
            tokens = block(tokens)
        logits_BK: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits_BK

    def layers(self) -> list[list[str]]:
        """Token module, blocks, head."""
        blocks = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        return [["tokens", "cls", "positions"], *blocks, ["norm", "head"]]


def resolve_t2t_sizes(config: T2TViTConfig) -> T2TViTConfig:
    """The same settings with every size that was left at 0 taken from the paper's number."""
    size = SIZES[config.size]
    width = config.width or size.width
    return replace(
        config,
        width=width,
        depth=config.depth or size.depth,
        num_heads=config.num_heads or size.num_heads,
        mlp_width=config.mlp_width or size.mlp_ratio * width,
    )


def _build_blocks(config: T2TViTConfig) -> nn.ModuleList:
    block = BlockConfig(
        width=config.width,
        num_heads=config.num_heads,
        mlp_width=config.mlp_width,
        dropout=config.dropout,
        drop_path_rescale=True,
        norm_eps=1e-5,
        gelu="none",
    )
    blocks = nn.ModuleList()
    for drop_path in drop_path_ramp(config.stochastic_depth, config.depth):
        attention = SelfAttention(
            config.width,
            config.num_heads,
            qkv_bias=False,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
        )
        blocks.append(TransformerBlock(block, attention, drop_path))
    return blocks
