"""T2T-ViT (Yuan et al., ICCV 2021) on images: the token module, then a narrow transformer with a class token.

Source: the paper, section 3.2, and the authors' code.
"""

import torch
from einops import repeat
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.checks import require
from vidtl.config.model import model_arguments
from vidtl.models.attention import Attention
from vidtl.models.base import VideoModel
from vidtl.models.blocks import Mlp, TransformerBlock, drop_path_ramp
from vidtl.models.position import Grid, PositionEmbedding, sincos_1d
from vidtl.models.t2t import TokenModule, TokensToToken, start_linear


class T2TViT(VideoModel):
    """T2T-ViT on images, which are clips of one frame: `input_BTCHW [B, 1, 3, H, W] -> logits_BK`.

    The token module, a class token, fixed sines and cosines over the sequence (class token: position 0), pre-norm
    blocks with LayerNorm epsilon 1e-5, exact GELU and no bias on queries, keys and values. Linear layers start from
    N(0, 0.02).

    The position table belongs to the image size. A new model computes its own; weights of another size bring theirs,
    resized as the authors' fine-tuning does, since in a longer row of tokens the same number stands for another place.
    The table and the Performer's features are parameters without gradient, as in the released files, and count as such.

    Arguments are the keys of `model` and `clip`, described in `vidtl/config`.

    Raises:
        UserError: clips of more than one frame, frames too small for one token, or heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_width: int,
        tokenizer: TokenModule = "t2t_performer",
        token_width: int = 64,
        token_dropout: float = 0.1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        num_frames: int = 1,
        frame_size: tuple[int, int],
        num_classes: int,
    ) -> None:
        super().__init__(num_frames, frame_size, num_classes)
        require(num_frames == 1, "clip.num_frames", num_frames, "1 with model.architecture t2t_vit, an image model")
        require(width % num_heads == 0, "model.width", width, f"multiples of model.num_heads, {num_heads}")
        self.tokens = TokensToToken(tokenizer, frame_size, width, token_width, token_dropout)
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        grid = Grid(1, *self.tokens.grids[-1])
        self.positions = PositionEmbedding(grid, width, class_token=True, resizing="bicubic")
        self.positions.weight = nn.Parameter(sincos_1d(grid.size + 1, width), requires_grad=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList()
        for drop_path in drop_path_ramp(stochastic_depth, depth):
            attention = Attention(
                width, num_heads, qkv_bias=False, dropout=dropout, attention_dropout=attention_dropout
            )
            mlp = Mlp(width, mlp_width, width, dropout=dropout, gelu="none")
            self.blocks.append(
                TransformerBlock(width, attention, mlp, drop_path=drop_path, rescale=True, norm_eps=1e-5)
            )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, num_classes)
        self.blocks.apply(start_linear)
        start_linear(self.head)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Normalized images `[B, 1, 3, H, W]` to scores `[B, K]`."""
        self.check_input(input_BTCHW)
        tokens_B1ND = self.tokens(input_BTCHW)
        cls = repeat(self.cls, "D -> B 1 1 D", B=tokens_B1ND.shape[0]).to(tokens_B1ND.dtype)
        tokens_B1ND = self.dropout(self.positions(torch.cat([cls, tokens_B1ND], dim=2)))
        for block in self.blocks:
            tokens_B1ND = block(tokens_B1ND)
        logits_BK: Tensor = self.head(self.norm(tokens_B1ND[:, 0, 0]))
        return logits_BK

    def layers(self) -> list[list[str]]:
        """Token module, blocks, head."""
        blocks = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        return [["tokens", "cls", "positions"], *blocks, ["norm", "head"]]

    def repeated_blocks(self) -> list[nn.Module]:
        """Layers of the token module, which see the longest sequences, and blocks."""
        return [*self.tokens.layers, *self.blocks]


def build_t2t_vit(config: ModelConfig, clip: ClipConfig, num_classes: int) -> T2TViT:
    """Build the model of a resolved configuration."""
    return T2TViT(**model_arguments(config, clip), num_classes=num_classes)
