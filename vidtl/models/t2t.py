"""The tokens-to-token module of T2T-ViT (Yuan et al., ICCV 2021): overlapping splits, a small transformer after each.

Source: the paper, section 3.1, and the authors' code, whose orders and constants are kept wherever the paper leaves
them open. The module turns single frames into tokens: those of T2T-ViT, or those of a ViViT in place of tubelets, or
those of the mini-ViT in place of patches.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange
from torch import Tensor, nn

from vidtl.config import ClipConfig, ViViTConfig
from vidtl.errors import UserError
from vidtl.models.attention import attend
from vidtl.models.blocks import Mlp
from vidtl.models.dropout import Dropout
from vidtl.models.position import Grid
from vidtl.models.tubelet import uniform_frames

TokenModule = Literal["performer", "transformer"]

TOKENISERS: dict[str, TokenModule] = {"t2t_performer": "performer", "t2t_transformer": "transformer"}
"""What models with a choice of tokenisers call the module."""


class Split(NamedTuple):
    """An overlapping cut into squares of `kernel` pixels, `stride` apart."""

    kernel: int
    stride: int
    padding: int

    def length(self, side: int) -> int:
        """Squares along a side of so many pixels."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))
"""The paper's [7, 3, 3] with overlaps [3, 1, 1]: together one token per 16 x 16 pixels."""

SMALL_IMAGE_SPLITS = (Split(7, 3, 2), Split(3, 2, 1))
"""The paper's first and last, the first with a shorter stride, for small images: one token per 6 x 6 pixels."""


class PerformerTokenLayer(nn.Module):
    """Attention of linear cost (Performer, Choromanski et al., 2021) that also changes the width: `[B, N, D] -> [B, N,
    S]`.

    One head with positive random features φ(u) = exp(W u - |u|² / 2) / √m, m = S / 2 and W frozen, orthogonal, times
    √m; queries and keys are not scaled. The skip connection starts from the values, because D is not S. Everything runs
    in float32 even under autocast: exp of a difference of large numbers loses its digits in bf16 and its range in fp16,
    where the 1e-8 of the division is 0. Dropout is on in the released recipes, though the rest of the model has none.
    """

    epsilon = 1e-8
    feature_ratio = 0.5

    def __init__(self, width: int, out_width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.kqv = nn.Linear(width, 3 * out_width)
        self.proj = nn.Linear(out_width, out_width)
        self.norm2 = nn.LayerNorm(out_width)
        self.mlp = Mlp(out_width, out_width, out_width, gelu="none")
        self.dropout = Dropout(dropout)
        num_features = int(out_width * self.feature_ratio)
        features = nn.init.orthogonal_(torch.empty(num_features, out_width)) * math.sqrt(num_features)
        self.features = nn.Parameter(features, requires_grad=False)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        with _without_autocast(tokens_BND.device):
            k, q, v = self.kqv(self.norm1(tokens_BND.float())).chunk(3, dim=-1)
            tokens_BNS = v + self.dropout(self.proj(self._attend(self._feature_map(q), self._feature_map(k), v)))
            out_BNS: Tensor = tokens_BNS + self.dropout(self.mlp(self.norm2(tokens_BNS)))
        return out_BNS

    def _feature_map(self, u_BNS: Tensor) -> Tensor:
        half_square = u_BNS.square().sum(dim=-1, keepdim=True) / 2
        return torch.exp(u_BNS @ self.features.T - half_square) / math.sqrt(self.features.shape[0])

    def _attend(self, q_BNm: Tensor, k_BNm: Tensor, v_BNS: Tensor) -> Tensor:
        weight_sum = q_BNm @ k_BNm.sum(dim=1).unsqueeze(-1)
        attended_BNS: Tensor = q_BNm @ (k_BNm.transpose(1, 2) @ v_BNS) / (weight_sum + self.epsilon)
        return attended_BNS


class TransformerTokenLayer(nn.Module):
    """Softmax attention with one head that also changes the width: `[B, N, D] -> [B, N, S]`.

    The products are scaled by D^-1/2, the width of the input rather than of the head (the authors' code), and the skip
    connection starts from the values, because D is not S.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * out_width, bias=False)
        self.proj = nn.Linear(out_width, out_width)
        self.norm2 = nn.LayerNorm(out_width)
        self.mlp = Mlp(out_width, out_width, out_width, gelu="none")

    def forward(self, tokens_BND: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(tokens_BND)), "B N (part S) -> part B 1 N S", part=3)
        tokens_BNS = (v + self.proj(attend(q, k, v, scale=self.scale))).squeeze(1)
        out_BNS: Tensor = tokens_BNS + self.mlp(self.norm2(tokens_BNS))
        return out_BNS


class TokensToToken(nn.Module):
    """Tokens of each frame by itself: `input_BTCHW -> tokens_BtND` with t = T and N = h * w.

    A token layer after every split but the last, after which comes a projection. A square's values run channel by
    channel, then row by row.

    Args:
        kind: which attention the token layers have.
        frame_size: height and width in pixels; need not be multiples of what the splits' strides amount to.
        width: D.
        token_width: width inside the module, 64 in every published model.
        dropout: inside the Performer layers only.
        splits: the published ones give one token per 16 x 16 pixels.

    Raises:
        UserError: frames too small for one token, or input of another frame size.
    """

    def __init__(
        self,
        kind: TokenModule,
        frame_size: tuple[int, int],
        width: int,
        token_width: int = 64,
        dropout: float = 0.1,
        splits: Sequence[Split] = SPLITS,
    ) -> None:
        super().__init__()
        self.frame_size = frame_size
        self.splits = tuple(splits)
        self.grids = _split_sizes(frame_size, splits)
        channels = [3] + [token_width] * (len(splits) - 1)
        *widths, last_width = (dim * split.kernel**2 for dim, split in zip(channels, splits, strict=True))
        if kind == "performer":
            layers: list[nn.Module] = [PerformerTokenLayer(dim, token_width, dropout) for dim in widths]
        else:
            layers = [TransformerTokenLayer(dim, token_width) for dim in widths]
        self.layers = nn.ModuleList(layers)
        self.proj = nn.Linear(last_width, width)
        self.apply(start_linear)

    @property
    def frame_grid(self) -> tuple[int, int]:
        """Tokens along height and width."""
        return self.grids[-1]

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        if tuple(input_BTCHW.shape[2:]) != (3, *self.frame_size):
            raise UserError(
                f"input has shape {list(input_BTCHW.shape)}; allowed: [B, T, C, H, W] with C, H, W = "
                f"{[3, *self.frame_size]}, the frames that the model was built for"
            )
        image = rearrange(input_BTCHW, "B T C H W -> (B T) C H W")
        for split, (height, width), layer in zip(self.splits[:-1], self.grids[:-1], self.layers, strict=True):
            image = rearrange(layer(_cut(image, split)), "B (h w) S -> B S h w", h=height, w=width)
        tokens = self.proj(_cut(image, self.splits[-1]))
        tokens_BtND: Tensor = rearrange(tokens, "(B T) N D -> B T N D", B=input_BTCHW.shape[0])
        return tokens_BtND


class T2TEmbedding(TokensToToken):
    """T2T tokens in place of a ViViT's tubelets: `input_BTCHW -> tokens_BtND`, one token per 16 x 16 pixels of a frame.

    Of every frame (tubelets of one frame), or of T / length evenly spaced ones (`tubelet_sampling` "uniform").

    Raises:
        UserError: tubelets of another size, or input of another shape than the clip's.
    """

    frames: Tensor | None

    def __init__(self, config: ViViTConfig, clip: ClipConfig, width: int) -> None:
        super().__init__(TOKENISERS[config.tokeniser], clip.frame_size, width, dropout=config.dropout)
        length, *patch = config.tubelet
        uniform = config.tubelet_sampling == "uniform"
        if patch != [16, 16] or (length > 1 and not uniform) or clip.num_frames % length:
            raise UserError(
                f"model.vivit.tubelet is {list(config.tubelet)}; allowed with {config.tokeniser}: [1, 16, 16] or, "
                "with tubelet_sampling uniform, [length, 16, 16], whose length divides clip.num_frames"
            )
        self.num_frames = clip.num_frames
        self.grid = Grid(clip.num_frames // length, *self.frame_grid)
        frames = torch.from_numpy(uniform_frames(clip.num_frames, self.grid.t)) if uniform else None
        self.register_buffer("frames", frames, persistent=False)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        if input_BTCHW.shape[1] != self.num_frames:
            raise UserError(
                f"input has {input_BTCHW.shape[1]} frames; allowed: {self.num_frames}, which the model was built for"
            )
        return super().forward(input_BTCHW if self.frames is None else input_BTCHW[:, self.frames])


def _split_sizes(frame_size: tuple[int, int], splits: Sequence[Split]) -> list[tuple[int, int]]:
    """Height and width of the grid after each split."""
    sizes = [frame_size]
    for split in splits:
        sizes.append((split.length(sizes[-1][0]), split.length(sizes[-1][1])))
    if min(sizes[-1]) < 1:
        raise UserError(f"clip.frame_size is {list(frame_size)}; allowed: 4 pixels or more with T2T tokens")
    return sizes[1:]


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # the meta device, on which costs are counted, has no autocast to switch off


def _cut(image_BCHW: Tensor, split: Split) -> Tensor:
    columns = F.unfold(image_BCHW, split.kernel, padding=split.padding, stride=split.stride)
    return columns.transpose(1, 2)


def start_linear(module: nn.Module) -> None:
    """Normal weights of standard deviation 0.02 and biases 0, in linear layers; other modules stay as they are."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
