"""What travels from the decoding workers to the device.

Axes: B clips, V views of one video, T frames, H W pixels, K classes. Pixels are uint8, planar [.., T, H * 3 / 2, W] or
RGB [.., T, H, W, 3].
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch

from vidtl.data.changes import Augmentation
from vidtl.data.mixing import Mixing


class Failure(NamedTuple):
    """One video that was asked for and could not be read."""

    record: int
    """Record number."""
    path: str
    reason: str
    classes: tuple[str, ...] = ()
    """Names of the video's classes."""
    attempt: int = 0
    """0 for a video that was due itself, 1 for its first substitute, and so on."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Training clips of one micro-batch of one process."""

    pixels: torch.Tensor
    """uint8 [B, T, ...]."""
    colour: torch.Tensor
    """int64 [B]; `Colour.code()` of each file."""
    targets: torch.Tensor
    """float32 [B, K]; one-hot or multi-hot (`vidtl.data.mixing` makes them soft)."""
    weights: torch.Tensor
    """float32 [B]; 1, or 0 for the clips that only fill up the last batch of an epoch."""
    augmentation: list[Augmentation]
    """Random changes of each clip, B of them. They stay on the host, which decides from them what the device does."""
    failures: list[Failure]
    """Videos that could not be read and were substituted, but for those that only fill up the batch."""
    mixing: Mixing | None = None
    """How its clips are mixed with each other on the device."""

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory (called by PyTorch's DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        mapped: dict[str, Any] = {
            name: function(value) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **mapped)


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """All views of one video, decoded in one pass."""

    index: int
    """Record number."""
    pixels: torch.Tensor | None
    """uint8 [V, T, ...], clip-major (all crops of the first clip first); None where the video could not be read."""
    colour: int
    """`Colour.code()` of the file."""
    failure: Failure | None
    """Why there are no pixels."""
    num_frames: int = 0
    """Of the whole file; 0 where it could not be read."""
    duration_s: float = 0.0
    """Of the whole file, the last frame's own time included."""


@dataclass(frozen=True, kw_only=True)
class ViewsBatch:
    """Videos that a worker hands over together: each tensor costs a connection to it, whatever its size."""

    videos: list[VideoViews]
    """Without pixels."""
    pixels: torch.Tensor | None
    """uint8 [videos that could be read, V, T, ...]; None where there are none."""

    def __iter__(self) -> Iterator[VideoViews]:
        """Videos with their pixels, in order."""
        rows = iter(()) if self.pixels is None else iter(self.pixels)
        for video in self.videos:
            yield video if video.failure else replace(video, pixels=next(rows))

    def pin_memory(self) -> Self:
        """The same videos in page-locked memory (called by PyTorch's DataLoader)."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())
