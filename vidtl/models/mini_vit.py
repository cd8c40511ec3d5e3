"""The small image ViT of the CIFAR-10 TokenLearner study (S. Paul and A. R. Gosthipati, keras.io, 2021).

It differs from ViViT's blocks in three ways: each head is as wide as the tokens, the MLP ends in a second GELU, and
GELU is the exact function (inside TokenLearner this project's is the tanh approximation; they differ by less than
1e-3). The study's resizing to 52 x 52, cropping to 48 x 48 and mirroring are part of the data path here, not of the
model.
"""

from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config import ClipConfig, MiniViTConfig, ModelConfig
from vidtl.errors import UserError
from vidtl.models.attention import SelfAttention
from vidtl.models.blocks import BlockConfig, Mlp, TransformerBlock
from vidtl.models.dropout import Dropout
from vidtl.models.hub import VideoModel
from vidtl.models.position import Grid, PositionEmbedding
from vidtl.models.t2t import SMALL_IMAGE_SPLITS, TOKENISERS, TokensToToken
from vidtl.models.token_learner import TokenLearner


class PatchProjection(nn.Linear):
    """Patches by one linear layer: `input_BTCHW -> tokens_BtND` with t = T and N = h * w."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__(3 * patch**2, width)
        self.patch = patch
        # Keras' fans of a convolution count the kernel's places on both sides.
        _glorot_uniform_(self, patch**2 * (3 + width))

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        pixels = rearrange(input_BTCHW, "B t C (h a) (w b) -> B t (h w) (C a b)", a=self.patch, b=self.patch)
        return super().forward(pixels)


class WideHeadAttention(SelfAttention):
    """Self-attention whose heads have a width of their own: `[B, N, D] -> [B, N, D]` through heads x head width."""

    def __init__(self, config: MiniViTConfig) -> None:
        inner = config.num_heads * config.head_width
        super().__init__(config.width, config.num_heads, inner_width=inner, attention_dropout=config.attention_dropout)
        # Keras holds these kernels as [D, heads, head width] and [heads, head width, D] and multiplies both fans by the
        # first axis, so that its Glorot start of the former is several times narrower than that of the same matrix.
        for layer in (self.q, self.k, self.v):
            _glorot_uniform_(layer, config.width * (config.num_heads + config.head_width))
        _glorot_uniform_(self.proj, config.num_heads * (config.head_width + config.width))


class TwiceActivatedMlp(Mlp):
    """Linear, GELU, dropout, linear, GELU, dropout: `[..., D] -> [..., D]`."""

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(self.act(self.fc1(tokens)))
        out: Tensor = self.dropout(self.act(self.fc2(hidden)))
        return out


class MiniBlock(TransformerBlock):
    """The study's pre-norm block: `[B, N, D] -> [B, N, D]`."""

    def __init__(self, config: MiniViTConfig) -> None:
        block = BlockConfig(
            width=config.width, num_heads=config.num_heads, mlp_width=config.mlp_width, dropout=config.dropout
        )
        super().__init__(block, WideHeadAttention(config))
        self.mlp = TwiceActivatedMlp(config.width, config.mlp_width, config.width, dropout=config.dropout, gelu="none")
        for layer in (self.mlp.fc1, self.mlp.fc2):
            nn.init.zeros_(layer.bias)


class MiniViT(VideoModel):
    """Mini-ViT on images, which are clips of one frame: `input_BTCHW [B, 1, 3, H, W] -> logits_BK`.

    Patches, positions, dropout, blocks with a TokenLearner between two of them, norm, mean over tokens, linear layer.
    The study's input is RGB in [0, 1] (`clip.mean` 0, `clip.std` 1) at 48 x 48 pixels. In place of patches the tokens
    may come from a tokens-to-token module (no part of the study), which gives as many.

    Raises:
        UserError: clips of more than one frame, a frame size that is no multiple of the patch, input of another shape.
    """

    def __init__(self, model_config: ModelConfig, clip_config: ClipConfig, num_classes: int) -> None:
        super().__init__(model_config, clip_config, num_classes)
        config = model_config.mini_vit
        grid = _checked_grid(config, clip_config)
        self.frame_size = clip_config.frame_size
        # One name for every tokeniser; saved weights have it.
        self.proj = _build_tokeniser(config, clip_config)
        self.positions = PositionEmbedding(grid, config.width)
        nn.init.uniform_(self.positions.weight, -0.05, 0.05)
        self.positions.weight.requires_grad_(config.positions == "learned")
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(MiniBlock(config) for _ in range(config.depth))
        learner = config.token_learner
        self.after_block = learner.after_block if learner.num_tokens else config.depth
        self.token_learner = (
            TokenLearner(config.width, learner.num_tokens, learner.version, learner.pooling, config.dropout)
            if learner.num_tokens
            else None
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, num_classes)
        _glorot_uniform_(self.head, config.width + num_classes)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        """Images `[B, 1, 3, H, W]` to scores `[B, K]`."""
        tokens_BND = self._before_token_learner(input_BTCHW)
        if self.token_learner is not None:
            tokens_BND = self.token_learner(tokens_BND, self.positions.grid[1:])
        for block in self.blocks[self.after_block :]:
            tokens_BND = block(tokens_BND)
        logits_BK: Tensor = self.head(reduce(self.norm(tokens_BND), "B N D -> B D", "mean"))
        return logits_BK

    def layers(self) -> list[list[str]]:
        """Tokeniser, blocks, head; TokenLearner belongs to the block that follows it."""
        blocks = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        if self.token_learner is not None:
            blocks[min(self.after_block, len(blocks) - 1)].append("token_learner")
        return [["proj", "positions"], *blocks, ["norm", "head"]]

    def token_maps(self, input_BTCHW: Tensor) -> Tensor:
        """Where TokenLearner looks: weights `[B, 1, S, h, w]` before pooling; UserError in a model without it."""
        if self.token_learner is None:
            raise UserError("model.mini_vit.token_learner.num_tokens is 0; allowed: 1 or more, to have token maps")
        _, *grid = self.positions.grid
        maps_BSN = self.token_learner.maps(self._before_token_learner(input_BTCHW), (grid[0], grid[1]))
        maps_BtShw: Tensor = rearrange(maps_BSN, "B S (h w) -> B 1 S h w", h=grid[0])
        return maps_BtShw

    def _before_token_learner(self, input_BTCHW: Tensor) -> Tensor:
        allowed = [1, 3, *self.frame_size]
        if list(input_BTCHW.shape[1:]) != allowed:
            raise UserError(
                f"input has shape {list(input_BTCHW.shape)}; allowed: [B, T, C, H, W] with T, C, H, W = {allowed}, "
                "the images that the model was built for"
            )
        tokens_BND: Tensor = self.dropout(self.positions(self.proj(input_BTCHW))).squeeze(1)
        for block in self.blocks[: self.after_block]:
            tokens_BND = block(tokens_BND)
        return tokens_BND


def _build_tokeniser(config: MiniViTConfig, clip: ClipConfig) -> nn.Module:
    """`input_BTCHW -> tokens_BtND`."""
    if config.tokeniser == "patch":
        return PatchProjection(config.patch, config.width)
    kind = TOKENISERS[config.tokeniser]
    return TokensToToken(kind, clip.frame_size, config.width, dropout=config.dropout, splits=SMALL_IMAGE_SPLITS)


def _checked_grid(config: MiniViTConfig, clip: ClipConfig) -> Grid:
    """Tokens of the image; UserErrors for settings that are each fine but not together."""
    if clip.num_frames != 1:
        raise UserError(
            f"clip.num_frames is {clip.num_frames}; allowed: 1 with model.architecture mini_vit, which sees images"
        )
    height, width = clip.frame_size
    if height % config.patch or width % config.patch:
        raise UserError(
            f"clip.frame_size is {list(clip.frame_size)}; allowed: multiples of model.mini_vit.patch, {config.patch}"
        )
    grid = Grid(1, height // config.patch, width // config.patch)
    if config.token_learner.num_tokens > grid.size:
        raise UserError(
            f"model.mini_vit.token_learner.num_tokens is {config.token_learner.num_tokens}; "
            f"allowed: 0 to {grid.size}, the number of tokens"
        )
    return grid


def _glorot_uniform_(layer: nn.Linear, sum_of_fans: int) -> None:
    """Uniform within ±√(6 / (fan in + fan out)), bias 0."""
    limit = (6 / sum_of_fans) ** 0.5
    nn.init.uniform_(layer.weight, -limit, limit)
    nn.init.zeros_(layer.bias)
