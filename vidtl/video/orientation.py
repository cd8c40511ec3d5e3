"""Rotation and mirroring of decoded pictures, from FFmpeg's display matrix."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vidtl.video.reader import Box
from vidtl.video.safety import opened

_MAX_HEADER_BYTES = 64 << 20


@dataclass(frozen=True)
class Orientation:
    """Steps from the coded to the displayed picture: transpose, then mirror along the displayed axes."""

    transpose: bool = False
    mirror_rows: bool = False
    """Swap top and bottom."""
    mirror_columns: bool = False
    """Swap left and right."""

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


def orientation_from_matrix(matrix: bytes) -> Orientation:
    """Parse FFmpeg's display matrix (libavutil/display.h): nine native int32 in rows a b u, c d v, x y w.

    A point (x, y) of the coded picture is shown at (a x + c y, b x + d y). Scales are ignored, like pixel aspect.

    Raises:
        ValueError: the rotation is no multiple of a quarter turn.
    """
    a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, dtype=np.int32)[:5])
    if b == c == 0:
        return Orientation(False, mirror_rows=d < 0, mirror_columns=a < 0)
    if a == d == 0:
        return Orientation(True, mirror_rows=b < 0, mirror_columns=c < 0)
    raise ValueError("its display matrix is no multiple of a quarter turn")


def may_be_rotated(file: Path | BinaryIO, container: str) -> bool:
    """Return False if the container's header shows that there is no display matrix, or only the identity.

    FFmpeg returns the matrix with decoded frames only. Decoding one at open costs up to a sixth of a clip, and almost
    no file needs it, so the header is searched first; if this returns True, a frame must be decoded.
    """
    with opened(file) as stream:
        if container == "mov":
            return _iso_header_rotates(_iso_movie_box(stream))
        if container == "matroska":
            # ProjectionPoseRoll with its size, 4 or 8 bytes, before the first Cluster.
            header = stream.read(1 << 20).split(b"\x1f\x43\xb6\x75")[0]
            return b"\x76\x75\x84" in header or b"\x76\x75\x88" in header
    return False


def _iso_movie_box(file: BinaryIO) -> bytes:
    """Return the contents of the first `moov` box at the top level (ISO/IEC 14496-12, 4.2), or nothing."""
    while len(head := file.read(8)) == 8:
        size, kind, header_size = int.from_bytes(head[:4]), head[4:], 8
        if size == 1:
            size, header_size = int.from_bytes(file.read(8)), 16
        if kind == b"moov":
            return file.read(min(size - header_size, _MAX_HEADER_BYTES) if size else _MAX_HEADER_BYTES)
        if size < header_size:
            break
        file.seek(size - header_size, 1)
    return b""


def _iso_header_rotates(movie: bytes) -> bool:
    """Search `mvhd` and `tkhd` boxes (ISO/IEC 14496-12, 8.2.2 and 8.3.2) for a matrix that is not the identity."""
    for kind, times_v0, rest in ((b"mvhd", 16, 16), (b"tkhd", 20, 16)):
        start = movie.find(kind)
        while start >= 0:
            version = movie[start + 4 : start + 5]
            wide = 12 if version == b"\x01" else 0
            offset = start + 8 + times_v0 + wide + rest
            matrix = np.frombuffer(movie[offset : offset + 20].ljust(20, b"\0"), dtype=">i4")
            if matrix[1] or matrix[3] or matrix[0] < 0 or matrix[4] < 0:
                return True
            start = movie.find(kind, start + 4)
    return False
