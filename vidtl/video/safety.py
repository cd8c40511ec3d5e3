"""Checks of a path and of the first bytes of a file.

FFmpeg opens the files that a playlist named `.mp4` lists, and the images of a pattern such as `%d.dpx`. PyAV is limited
to one open file (`vidtl.video.source`); decord and torchcodec have no option against either.
"""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vidtl.video.reader import UnreadableVideo

_MAX_HEADER_BYTES = 64 << 20

# First bytes that leave FFmpeg of any version one demuxer. Packets of transport streams have 188 or 192 bytes.
_CONTAINERS = re.compile(
    rb"(?s)(?P<mov>.{4}(?:ftyp|moov|mdat|free|skip|wide))|(?P<avi>RIFF.{4}AVI )|(?P<matroska>\x1a\x45\xdf\xa3)"
    rb"|(?P<flv>FLV\x01)|(?P<mpeg>\0\0\x01\xba)|(?P<mpegts>(?:G.{187}){3}G|.{4}(?:G.{191}){3}G)"
)
_OTHER_FILES = re.compile(
    rb"(?si)(?P<an_image>\xff\xd8\xff|\x89PNG|BM|II\*\0|MM\0\*|RIFF.{4}WEBP)"
    rb"|(?P<sound>RIFF.{4}WAVE|ID3|fLaC|\xff[\xf1\xf9\xfb])"
    rb"|(?P<a_playlist>(?:\xef\xbb\xbf)?#EXTM3U|ffconcat|v=0|\[playlist)|(?P<a_web_page>\s*<(?:!doctype )?html)"
)


def checked_path(path: Path, root: Path | None, folder: bool = False) -> Path:
    """Return the real path of a regular file or folder; UnreadableVideo if missing, another kind, or outside `root`."""
    if any(character in str(path) for character in "\0\n\r"):
        raise UnreadableVideo(path, "a path may not contain NUL or line breaks")
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise UnreadableVideo(path, getattr(error, "strerror", None) or str(error)) from error
    if root is not None and not real.is_relative_to(root.resolve()):
        raise UnreadableVideo(path, f"lies outside the data root {root}")
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        raise UnreadableVideo(path, "not a folder" if folder else "not a regular file")
    return real


def path_of(file: Path | BinaryIO) -> Path:
    """Return the path for error messages: that of the file, or the name of a file object."""
    return file if isinstance(file, Path) else Path(str(getattr(file, "name", "<file object>")))


@contextmanager
def opened(file: Path | BinaryIO) -> Iterator[BinaryIO]:
    """Open a path for reading, or rewind a seekable file object, which stays open afterwards."""
    if isinstance(file, Path):
        with file.open("rb", buffering=0) as stream:
            yield stream  # type: ignore[misc]  # a RawIOBase
    else:
        file.seek(0)
        yield file


def container_of_head(file: Path) -> str | None:
    """Return FFmpeg's name of the demuxer if the first bytes prove it to be one of the six commonest."""
    with opened(file) as stream:
        found = _CONTAINERS.match(stream.read(1024))
    return found.lastgroup if found else None


def why_no_video(file: Path | BinaryIO) -> str:
    """Return the reason why FFmpeg opens a file with none of the allowed demuxers."""
    with opened(file) as stream:
        head = stream.read(64)
    if other := _OTHER_FILES.match(head):
        return f"no video stream: it begins as {str(other.lastgroup).replace('_', ' ')} does"
    return "not a video, or one with a damaged header" if head else "the file is empty"


def may_be_rotated(file: Path | BinaryIO, container: str) -> bool:
    """Return False if the container's header has no display matrix but the identity, which saves to decode a frame."""
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
    for kind, to_matrix in ((b"mvhd", 40), (b"tkhd", 44)):
        start = movie.find(kind)
        while start >= 0:
            offset = start + to_matrix + (12 if movie[start + 4 : start + 5] == b"\x01" else 0)  # wide times
            matrix = np.frombuffer(movie[offset : offset + 20].ljust(20, b"\0"), dtype=">i4")
            if matrix[1] or matrix[3] or matrix[0] < 0 or matrix[4] < 0:
                return True
            start = movie.find(kind, start + 4)
    return False
