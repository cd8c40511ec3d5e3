"""What every decoding backend takes and gives. Axes: V views, T frames, H W pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np

from vidtl.data.sampling import Box

Matrix = Literal["bt601", "bt709", "bt2020"]
PixelFormat = Literal["planar", "rgb"]

MATRICES: tuple[Matrix, ...] = ("bt601", "bt709", "bt2020")

LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
"""Weights of red and blue in luma (ITU-R BT.601, BT.709, BT.2020 with non-constant luminance); the rest is green's."""


class UnreadableVideo(Exception):  # noqa: N818 (named for what is wrong, not for being an error)
    """A file that cannot be read, or not as it must be: `path: reason` in one line."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = " ".join(reason.split())

    def __str__(self) -> str:
        path = str(self.path)
        # Names with control characters or undecodable bytes must not break the line or the terminal.
        return f"{path if path.isprintable() else ascii(path)}: {self.reason}"


def clip_shape(num_frames: int, frame_size: tuple[int, int], pixel_format: PixelFormat) -> tuple[int, ...]:
    """Of the uint8 array that holds one clip: [T, H * 3 / 2, W] or [T, H, W, 3]."""
    height, width = frame_size
    return (num_frames, height * 3 // 2, width) if pixel_format == "planar" else (num_frames, height, width, 3)


@dataclass(frozen=True)
class Colour:
    """How YUV turns into RGB: the matrix and whether luma spans 0..255 (full) or 16..235 (limited)."""

    matrix: Matrix
    full_range: bool

    def code(self) -> int:
        """A small integer for transport: 2 x position of the matrix in `MATRICES`, plus 1 for full range."""
        return 2 * MATRICES.index(self.matrix) + int(self.full_range)


@dataclass(frozen=True)
class View:
    """One clip of a video: which frames, and which part of each."""

    indices: np.ndarray
    """int64 [T]: frame numbers in presentation order, repeats allowed."""
    box: Box
    """Part of the displayed frame that fills the output."""


class VideoReader(Protocol):
    """An open video file. Use as a context manager in the process that opened it; it is neither inherited nor pickled.

    Frames are those that a decode from start to end yields, numbered in presentation order. Sizes are as displayed:
    after the rotation and mirroring that the file asks for. Non-square pixels are read as if they were square, as
    every common framework does, because models are trained that way.
    """

    path: Path
    height: int
    width: int
    times_s: np.ndarray
    """float64 [N]: presentation time of every frame in seconds; the first is 0."""
    fps: float
    """Average frame rate over the file."""
    colour: Colour

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Decode all views in one pass over the file, each frame once, each box resized to `frame_size` (H, W).

        Returns:
            uint8 [V, T, H * 3 / 2, W] for "planar": I420, the Y plane and then U and V at half size, each contiguous;
            colours are those of `colour`. uint8 [V, T, H, W, 3] for "rgb".

        Raises:
            UnreadableVideo: a wanted frame cannot be decoded exactly.
            IndexError: a view asks for a frame or a box that the video does not have.
        """
        ...

    def close(self) -> None:
        """Free the decoder and the file; closing twice is allowed."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
