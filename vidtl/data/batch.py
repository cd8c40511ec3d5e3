"""Batches of decoding workers, and their conversion to the model's input on the device.

Axes: B clips, V views of one video, T frames, H W pixels, K classes. Pixels are uint8, planar YUV 4:2:0 (I420)
[.., T, H * 3 / 2, W] or RGB [.., T, H, W, 3]: float32 clips would cost eight or four times the memory traffic.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from einops import rearrange
from torch.nn import functional

from vidtl.config import ClipConfig
from vidtl.data.augmentation import Augmentation, Mixing, augment, erase, mix
from vidtl.video.reader import LUMA_WEIGHTS, MATRICES, Color


class Read(NamedTuple):
    """One attempt to read the video of a record, or of another one that is tried in its place."""

    epoch: int
    record: int
    tried: int


class Failure(NamedTuple):
    """A video that could not be read."""

    record: int
    path: str
    reason: str
    classes: tuple[str, ...] = ()
    attempt: int = 0
    """0 for the video of the sample, 1 for its first substitute, and so on."""
    given_up: Read | None = None
    """Set if the read exceeded a limit or crashed the decoder, which another time it might not."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Training clips of one micro-batch of one process."""

    pixels: torch.Tensor
    """uint8 [B, T, ...]."""
    color: torch.Tensor
    """int64 [B]; `Color.code()` of each file."""
    targets: torch.Tensor
    """float32 [B, K]; one-hot or multi-hot (mixing makes them soft)."""
    weights: torch.Tensor
    """float32 [B]; 1, or 0 for clips that pad the last batch of an epoch."""
    augmentation: list[Augmentation]
    """B of them. They stay on the host, which chooses the operations that the device runs."""
    failures: list[Failure]
    """Videos that could not be read and were substituted, except those of padding."""
    mixing: Mixing | None = None

    def to(self, device: torch.device) -> Self:
        """Return the same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return the same batch in page-locked memory (called by PyTorch's DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        tensors: Any = {name: function(each) for name, each in vars(self).items() if isinstance(each, torch.Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """All views of one video, decoded in one pass."""

    index: int
    pixels: torch.Tensor | None
    """uint8 [V, T, ...], clip-major (all crops of the first clip first); None if the video could not be read."""
    color: int
    """`Color.code()` of the file."""
    failure: Failure | None
    frames: np.ndarray | None = None
    """int64 [V, T]: numbers of the frames in the file."""
    num_frames: int = 0
    """Frames of the whole file; 0 if it could not be read."""
    duration_s: float = 0.0
    """Length of the whole file, including the duration of the last frame."""


@dataclass(frozen=True, kw_only=True)
class ViewsBatch:
    """Videos without pixels that a worker sends together, since each tensor costs a connection, whatever its size."""

    videos: list[VideoViews]
    pixels: torch.Tensor | None
    """uint8 [readable videos, V, T, ...]; None if there are none."""

    def __iter__(self) -> Iterator[VideoViews]:
        """Yield videos with their pixels, in order."""
        rows = iter(()) if self.pixels is None else iter(self.pixels)
        for video in self.videos:
            yield video if video.failure else replace(video, pixels=next(rows))

    def pin_memory(self) -> Self:
        """Return the same videos in page-locked memory (called by PyTorch's DataLoader)."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())


def conversion(color: Color) -> list[list[float]]:
    """Return rows R, G, B of the map from (Y, U, V) in 0..255 to RGB in 0..1: three weights and an offset each.

    Source: ITU-T H.273, equations for MatrixCoefficients; limited range spans 16..235 (luma) and 16..240 (chroma).
    """
    red, blue = LUMA_WEIGHTS[color.matrix]
    green = 1 - red - blue
    luma_low, luma_span, chroma_span = (0, 255, 255) if color.full_range else (16, 219, 224)
    of_green = (-2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green)
    weights = [(0.0, 2 * (1 - red)), of_green, (2 * (1 - blue), 0.0)]
    rows = [(1.0 / luma_span, u / chroma_span, v / chroma_span) for u, v in weights]
    return [[luma, u, v, -(luma * luma_low + (u + v) * 128)] for luma, u, v in rows]


@cache
def _conversions(device: torch.device) -> torch.Tensor:
    """Return all conversions by `Color.code()`: [codes, 3, 4]; cached to copy them to the device once."""
    colors = [Color(matrix, full_range) for matrix in MATRICES for full_range in (False, True)]
    return torch.tensor([conversion(color) for color in sorted(colors, key=Color.code)], device=device)


def to_rgb(pixels: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Convert transported frames to float32 RGB [B, T, 3, H, W] in 0..1; chroma is upsampled bilinearly.

    Args:
        pixels: uint8 RGB [B, T, H, W, 3], or I420 [B, T, H * 3 / 2, W] of even H and W: the Y plane, then U and V.
        color: int64 [B]; `Color.code()` of each clip's file.
    """
    if pixels.ndim == 5:
        return rearrange(pixels, "B T H W C -> B T C H W").float() / 255  # type: ignore[no-any-return]
    batch, frames, rows, width = pixels.shape
    height = rows * 2 // 3
    flat = rearrange(pixels, "B T R W -> (B T) (R W)")
    luma = rearrange(flat[:, : height * width], "N (H W) -> N 1 H W", H=height).float()
    chroma = rearrange(flat[:, height * width :], "N (C H W) -> N C H W", C=2, H=height // 2).float()
    chroma = functional.interpolate(chroma, size=(height, width), mode="bilinear", align_corners=False)
    yuv = rearrange(torch.cat([luma, chroma], dim=1), "(B T) C H W -> B C (T H W)", B=batch)
    table = _conversions(pixels.device)[color]
    rgb = torch.baddbmm(table[:, :, 3:], table[:, :, :3], yuv).clamp_(0, 1)
    return rearrange(rgb, "B C (T H W) -> B T C H W", T=frames, H=height)


def normalize(rgb_BTCHW: torch.Tensor, clip: ClipConfig) -> torch.Tensor:
    """Subtract `clip.mean` and divide by `clip.std`, per channel."""
    mean, std = torch.tensor([clip.mean, clip.std])[:, :, None, None].to(rgb_BTCHW.device, non_blocking=True)
    return (rgb_BTCHW - mean) / std  # type: ignore[no-any-return]


def prepare_input(pixels: torch.Tensor, color: torch.Tensor, clip: ClipConfig) -> torch.Tensor:
    """Convert transported uint8 frames (see `to_rgb`) to the model's input, float32 [B, T, 3, H, W]."""
    return normalize(to_rgb(pixels, color), clip)


def batch_input(batch: ClipBatch, clip: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert, augment, normalize and mix frames to the model's input [B, T, 3, H, W]; also mix the targets [B, K]."""
    rgb_BTCHW = augment(to_rgb(batch.pixels, batch.color), batch.augmentation)
    input_BTCHW = erase(normalize(rgb_BTCHW, clip), batch.augmentation)
    return mix(input_BTCHW, batch.targets, batch.mixing) if batch.mixing else (input_BTCHW, batch.targets)
