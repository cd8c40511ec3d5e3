"""The interface of every decoding backend, and orientation. Axes: V views, T frames, H W pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np

Matrix = Literal["bt601", "bt709", "bt2020"]
PixelFormat = Literal["planar", "rgb"]

MATRICES: tuple[Matrix, ...] = ("bt601", "bt709", "bt2020")

LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
"""Weights of red and blue in luma (ITU-R BT.601, BT.709, BT.2020 non-constant luminance); green has the rest."""


_MOST_CHARACTERS = 500  # of a reason; libraries quote the file


class UnreadableVideo(Exception):  # noqa: N818 (a state of the file, which callers handle)
    """A file that cannot be read exactly: `path: reason` in one line."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = " ".join(reason[:_MOST_CHARACTERS].split())

    def __str__(self) -> str:
        path = str(self.path)
        # Names with control characters or undecodable bytes must not break the line or the terminal.
        return f"{path if path.isprintable() else ascii(path)}: {self.reason}"


class Box(NamedTuple):
    """A rectangle in pixels of the displayed frame."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """One clip of a video: frame numbers, and the part of each frame that fills the output."""

    indices: np.ndarray
    """int64 [T]: frame numbers in presentation order, repeats allowed."""
    box: Box


@dataclass(frozen=True)
class Color:
    """Conversion of YUV to RGB: the matrix, and luma over 0..255 (full range) or 16..235 (limited)."""

    matrix: Matrix
    full_range: bool

    def code(self) -> int:
        """Return a small integer for transport: 2 x position of the matrix in `MATRICES`, plus 1 for full range."""
        return 2 * MATRICES.index(self.matrix) + int(self.full_range)


@dataclass(frozen=True)
class Orientation:
    """Steps from the coded to the displayed picture: transpose, then mirror along the displayed axes."""

    transpose: bool = False
    mirror_rows: bool = False
    mirror_columns: bool = False

    @classmethod
    def from_matrix(cls, matrix: bytes) -> Self:
        """Parse FFmpeg's display matrix (libavutil/display.h): nine native int32 in rows a b u, c d v, x y w.

        A point (x, y) of the coded picture is shown at (a x + c y, b x + d y). Scales are ignored, like pixel aspect.
        ValueError: the rotation is no multiple of a quarter turn.
        """
        a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, dtype=np.int32)[:5])
        if b == c == 0:
            return cls(False, mirror_rows=d < 0, mirror_columns=a < 0)
        if a == d == 0:
            return cls(True, mirror_rows=b < 0, mirror_columns=c < 0)
        raise ValueError("its display matrix is no multiple of a quarter turn")

    def is_mirrored(self) -> bool:
        """Return True for a reflection, False for a pure rotation."""
        return self.transpose ^ self.mirror_rows ^ self.mirror_columns

    def displayed_size(self, height: int, width: int) -> tuple[int, int]:
        """Convert height and width from coded to displayed, or back."""
        return (width, height) if self.transpose else (height, width)

    def coded_box(self, box: Box, height: int, width: int) -> Box:
        """Convert a box to coded coordinates; `height` and `width` are those of the displayed picture."""
        top = height - box.top - box.height if self.mirror_rows else box.top
        left = width - box.left - box.width if self.mirror_columns else box.left
        if self.transpose:
            return Box(left, top, box.width, box.height)
        return Box(top, left, box.height, box.width)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return a view of coded pixels [H, W, ...] as displayed."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.mirror_rows else 1, :: -1 if self.mirror_columns else 1]


def clip_shape(num_frames: int, frame_size: tuple[int, int], pixel_format: PixelFormat) -> tuple[int, ...]:
    """Return the shape of one uint8 clip: [T, H * 3 / 2, W] ("planar") or [T, H, W, 3] ("rgb")."""
    height, width = frame_size
    return (num_frames, height * 3 // 2, width) if pixel_format == "planar" else (num_frames, height, width, 3)


class VideoReader(Protocol):
    """An open video; a context manager for the process that opened it, neither inherited nor pickled.

    Frames are those of a decode from start to end, numbered in presentation order. Sizes are as displayed, after the
    rotation and mirroring that the file specifies. Pixels are read as if they were square, as in common frameworks.
    """

    path: Path
    height: int
    width: int
    times_s: np.ndarray
    """float64 [N]: presentation time of every frame in s from the start of the file, as in players; the first is 0
    unless the sound begins earlier."""
    fps: float
    """Average frame rate of the file."""
    color: Color
    seeks: bool = True
    """False if reading decodes the file from its start."""

    @property
    def duration_s(self) -> float:
        """Length of the whole file, including the duration of the last frame."""
        return float(self.times_s[-1] - self.times_s[0]) + 1 / self.fps

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Decode all views in one pass, each frame once, and resize each box to `frame_size` (H, W).

        The result is uint8 [V, T, H * 3 / 2, W] for "planar": I420, the Y plane, then U and V at half size, each
        contiguous, in the colors of `color`; or uint8 [V, T, H, W, 3] for "rgb".

        UnreadableVideo: a requested frame cannot be decoded exactly. IndexError: a view has a frame or a box outside
        the video. UserError: this kind of video is not read in `pixel_format`.
        """
        ...

    def read_each(
        self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat
    ) -> Iterator[np.ndarray]:
        """Yield the clips of views of one box whose first frames rise, each as `read` returns it, or its errors."""
        return (self.read([view], frame_size, pixel_format)[0] for view in views)

    def close(self) -> None:
        """Free the decoder and the file; may be called twice."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
