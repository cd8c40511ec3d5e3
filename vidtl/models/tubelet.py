"""From a clip to a grid of tokens: tubelets of any size, or patches of evenly spaced frames (ViViT section 3.2)."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.position import Grid


class TubeletEmbedding(nn.Module):
    """Project each box of frames x pixels x pixels to one token: `input_BTCHW -> tokens_BtND` with N = h * w.

    A reshape and one linear layer: the same numbers as a Conv3d whose stride is its kernel, several times as fast in
    bf16. A Conv3d kernel `[D, C, t, h, w]` loads by reshape. The kernel starts as Flax starts convolutions: a truncated
    normal of variance 1 / fan-in, whose cut at 2 leaves 0.88 of the spread.
    """

    def __init__(self, tubelet: tuple[int, int, int], width: int, channels: int = 3) -> None:
        super().__init__()
        self.tubelet = tubelet
        fan_in = channels * tubelet[0] * tubelet[1] * tubelet[2]
        self.proj = nn.Linear(fan_in, width)
        std = fan_in**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.proj.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.proj.bias)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        tokens_BtND: Tensor = self.proj(cut_tubelets(input_BTCHW, self.tubelet))
        return tokens_BtND


def cut_tubelets(input_BTCHW: Tensor, tubelet: tuple[int, int, int]) -> Tensor:
    """Return the values of each tubelet: `[B, t, N, C * frames * height * width]`."""
    length, height, width = tubelet
    pattern = "B (t length) C (h a) (w b) -> B t (h w) (C length a b)"
    return rearrange(input_BTCHW, pattern, length=length, a=height, b=width)  # type: ignore[no-any-return]


def tubelet_grid(tubelet: tuple[int, int, int], num_frames: int, frame_size: tuple[int, int]) -> Grid:
    """Return the number of tubelets along time, height and width.

    Raises:
        UserError: the clip is not a whole number of tubelets.
    """
    length, *patch = tubelet
    if num_frames % length:
        raise UserError(
            f"clip.num_frames is {num_frames}; allowed: multiples of the tubelet's {length} frames "
            f"(model.tubelet is {list(tubelet)})"
        )
    for side, size, part in zip(("height", "width"), frame_size, patch, strict=True):
        if size % part:
            raise UserError(
                f"clip.frame_size is {list(frame_size)}; allowed: a {side} that is a multiple of the tubelet's "
                f"{part} pixels, such as {max(size // part, 1) * part} (model.tubelet is {list(tubelet)})"
            )
    return Grid(num_frames // length, frame_size[0] // patch[0], frame_size[1] // patch[1])


def uniform_frames(num_frames: int, num_sampled: int) -> Tensor:
    """Return the indices of `num_sampled` evenly spaced frames: round(s k) for k = 1 ..., s = T / (n + 1).

    Halves round to even. Source: the frame sampler of ViViT's reference code; 8 of 32 frames are 4, 7, 11, 14, 18, 21,
    25 and 28.
    """
    if num_sampled >= num_frames:
        return torch.arange(num_frames)
    step = num_frames / (num_sampled + 1)
    indices = np.round(step * np.arange(1, num_sampled + 1)).astype(np.int64)
    return torch.from_numpy(np.minimum(indices, num_frames - 1))
