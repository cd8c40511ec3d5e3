"""Batches that the decoding workers send to the device, and their conversion to the model's input.

Axes: B clips, V views of one video, T frames, H W pixels, K classes. Pixels are uint8, planar [.., T, H * 3 / 2, W] or
RGB [.., T, H, W, 3].
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch

from vidtl.config import ClipConfig
from vidtl.data.augmentation import Augmentation, augment, erase
from vidtl.data.mixing import Mixing, mix
from vidtl.data.pixels import normalize, to_rgb


class Failure(NamedTuple):
    """A video that could not be read."""

    record: int
    """Record number."""
    path: str
    reason: str
    classes: tuple[str, ...] = ()
    """Names of the video's classes."""
    attempt: int = 0
    """0 for the video of the sample itself, 1 for its first substitute, and so on."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Training clips of one micro-batch of one process."""

    pixels: torch.Tensor
    """uint8 [B, T, ...]."""
    color: torch.Tensor
    """int64 [B]; `Color.code()` of each file."""
    targets: torch.Tensor
    """float32 [B, K]; one-hot or multi-hot (`vidtl.data.mixing` makes them soft)."""
    weights: torch.Tensor
    """float32 [B]; 1, or 0 for clips that pad the last batch of an epoch."""
    augmentation: list[Augmentation]
    """One per clip. They stay on the host, which chooses the operations that the device runs."""
    failures: list[Failure]
    """Videos that could not be read and were substituted, except those of padding."""
    mixing: Mixing | None = None
    """Mixing of the clips with each other, on the device."""

    def to(self, device: torch.device) -> Self:
        """Return the same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return the same batch in page-locked memory (called by PyTorch's DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        mapped: dict[str, Any] = {
            name: function(value) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **mapped)


def batch_input(batch: ClipBatch, clip: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert uint8 frames to float RGB, then augment, normalize and mix them.

    Returns:
        The model's input [B, T, 3, H, W]; targets, mixed alike, [B, K].
    """
    rgb_BTCHW = augment(to_rgb(batch.pixels, batch.color), batch.augmentation)
    input_BTCHW = erase(normalize(rgb_BTCHW, clip), batch.augmentation)
    return mix(input_BTCHW, batch.targets, batch.mixing) if batch.mixing else (input_BTCHW, batch.targets)


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """All views of one video, decoded in one pass."""

    index: int
    """Record number."""
    pixels: torch.Tensor | None
    """uint8 [V, T, ...], clip-major (all crops of the first clip first); None if the video could not be read."""
    color: int
    """`Color.code()` of the file."""
    failure: Failure | None
    """Set if there are no pixels."""
    num_frames: int = 0
    """Frames of the whole file; 0 if it could not be read."""
    duration_s: float = 0.0
    """Length of the whole file, including the duration of the last frame."""


@dataclass(frozen=True, kw_only=True)
class ViewsBatch:
    """Videos that a worker sends together: each tensor costs a connection to it, whatever its size."""

    videos: list[VideoViews]
    """Without pixels."""
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
