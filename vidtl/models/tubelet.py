"""From a clip to a grid of tokens: tubelets of any size, or patches of evenly spaced frames (ViViT section 3.2)."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from vidtl.config import ClipConfig, ViViTConfig
from vidtl.errors import UserError
from vidtl.models.position import Grid


class TubeletEmbedding(nn.Module):
    """Cuts a clip into boxes of `tubelet` frames x pixels x pixels and projects each to one token.

    `input_BTCHW -> tokens_BtND` with N = h * w. A reshape and one linear layer: the same numbers as a Conv3d whose
    stride is its kernel, several times as fast in bf16. A Conv3d kernel `[D, C, t, h, w]` loads by reshape. With
    `tubelet_sampling` "uniform" the boxes are one frame long and lie in evenly spaced frames.

    Raises:
        UserError: frames or frame size are not multiples of the tubelet.
    """

    frames: Tensor | None

    def __init__(self, config: ViViTConfig, clip: ClipConfig, width: int, channels: int = 3) -> None:
        super().__init__()
        self.grid = tubelet_grid(config, clip)
        self.clip_shape = (clip.num_frames, channels, *clip.frame_size)
        length, *self.patch = config.tubelet
        frames = None
        if config.tubelet_sampling == "uniform":
            frames = torch.from_numpy(uniform_frames(clip.num_frames, self.grid.t))
            length = 1
        self.length = length
        self.register_buffer("frames", frames, persistent=False)
        fan_in = channels * length * self.patch[0] * self.patch[1]
        self.proj = nn.Linear(fan_in, width)
        _lecun_normal_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        if tuple(input_BTCHW.shape[1:]) != self.clip_shape:
            raise UserError(
                f"input has shape {list(input_BTCHW.shape)}; allowed: [B, T, C, H, W] with T, C, H, W = "
                f"{list(self.clip_shape)}, the clip that the model was built for"
            )
        if self.frames is not None:
            input_BTCHW = input_BTCHW[:, self.frames]
        pixels = rearrange(
            input_BTCHW,
            "B (t length) C (h a) (w b) -> B t (h w) (C length a b)",
            length=self.length,
            a=self.patch[0],
            b=self.patch[1],
        )
        tokens_BtND: Tensor = self.proj(pixels)
        return tokens_BtND


def tubelet_grid(config: ViViTConfig, clip: ClipConfig) -> Grid:
    """Tokens along time, height and width; a UserError where the clip is not a whole number of tubelets."""
    length, *patch = config.tubelet
    if clip.num_frames % length:
        raise UserError(
            f"clip.num_frames is {clip.num_frames}; allowed: multiples of the tubelet's {length} frames "
            f"(model.vivit.tubelet is {list(config.tubelet)})"
        )
    for side, size, part in zip(("height", "width"), clip.frame_size, patch, strict=True):
        if size % part:
            raise UserError(
                f"clip.frame_size is {list(clip.frame_size)}; allowed: a {side} that is a multiple of the tubelet's "
                f"{part} pixels, such as {max(size // part, 1) * part} (model.vivit.tubelet is {list(config.tubelet)})"
            )
    return Grid(clip.num_frames // length, clip.frame_size[0] // patch[0], clip.frame_size[1] // patch[1])


def uniform_frames(num_frames: int, num_sampled: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of `num_sampled` evenly spaced frames: round(s k) for k = 1 ..., s = T / (n + 1), halves to even.

    Source: the frame sampler of ViViT's reference code; 8 of 32 frames are 4, 7, 11, 14, 18, 21, 25 and 28.
    """
    if num_sampled >= num_frames:
        return np.arange(num_frames, dtype=np.int64)
    step = num_frames / (num_sampled + 1)
    indices = np.round(step * np.arange(1, num_sampled + 1)).astype(np.int64)
    return np.minimum(indices, num_frames - 1)


def _lecun_normal_(weight: Tensor) -> None:
    """Truncated normal of variance 1 / fan-in, as Flax starts convolutions; the cut at 2 leaves 0.88 of the spread."""
    std = weight.shape[1] ** -0.5 / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
