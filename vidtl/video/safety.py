"""Checks of a path and of the first bytes of a file, before any decoder opens it.

FFmpeg opens the files that a playlist named `.mp4` lists, and connects to servers for a path that begins with a
protocol. decord and torchcodec have no option against either.
"""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vidtl.video.reader import UnreadableVideo

OUTSIDE = "lies outside the data root"
_HEAD_BYTES = 1024  # enough for three packets of an MPEG transport stream
_MAX_HEADER_BYTES = 64 << 20
_ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}

# FFmpeg's input protocols (`ffmpeg -protocols`); a path component such as `concat:a|b` or `http:` starts with one.
_PROTOCOL = re.compile(
    r"^(async|bluray|cache|concat|concatf|crypto|data|dtls|fd|ffrtmp\w*|file|ftp|gophers?|hls|https?|httpproxy|icecast|"
    r"ip[fn]s(_gateway)?|lib(amqp|rist|smbclient|srt|ssh|zmq)|md5|mms[ht]|pipe|prompeg|rist|rtmp\w*|rtp|rtsp|sap|sctp|"
    r"sftp|shared|smb|srtp?|subfile|tcp|tee|tls|udp|udplite|unix|zmq)(\+\w+)?[:,]",
    re.IGNORECASE,
)


def checked_path(path: Path, root: Path | None, folder: bool = False) -> Path:
    """Return the real path of a regular file or of a folder, after following symbolic links.

    Raises:
        UnreadableVideo: it is missing, something else (opening a FIFO would block forever), or outside `root`.
    """
    if any(character in str(path) for character in "\0\n\r"):
        raise UnreadableVideo(path, "a path may not contain NUL or line breaks")
    if "://" in str(path) or any(_PROTOCOL.match(part) for part in path.parts):
        raise UnreadableVideo(path, "not a file name but a URL or a protocol")
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise UnreadableVideo(path, getattr(error, "strerror", None) or str(error)) from error
    if root is not None and not real.is_relative_to(root.resolve()):
        raise UnreadableVideo(path, f"{OUTSIDE} {root}")
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


def sniff_container(file: Path | BinaryIO) -> str:
    """Return FFmpeg's name of the demuxer for a file, from its first bytes.

    Returns:
        "mov" (MP4, MOV, 3GP: ISO base media), "matroska" (and WebM), "avi", "mpegts", "mpeg" (program stream) or "flv".

    Raises:
        UnreadableVideo: the file is empty, cannot be opened, or is none of these.
    """
    try:
        with opened(file) as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise UnreadableVideo(path_of(file), error.strerror or str(error)) from error
    if head[4:8] in _ISO_BOXES:
        return "mov"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    for container, magic in (("matroska", b"\x1a\x45\xdf\xa3"), ("flv", b"FLV\x01"), ("mpeg", b"\x00\x00\x01\xba")):
        if head.startswith(magic):
            return container
    # Transport streams: packets of 188 bytes, or 192 with a time code before each, that start with 0x47.
    if b"\x47" * 4 in (head[0:565:188], head[4:581:192]):
        return "mpegts"
    raise UnreadableVideo(path_of(file), "not a video container" if head else "the file is empty")


def may_be_rotated(file: Path | BinaryIO, container: str) -> bool:
    """Return False if the container's header shows that there is no display matrix, or only the identity.

    FFmpeg returns the matrix with decoded frames only, and decoding one at open costs up to a sixth of a clip.
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
    for kind, to_matrix in ((b"mvhd", 40), (b"tkhd", 44)):
        start = movie.find(kind)
        while start >= 0:
            offset = start + to_matrix + (12 if movie[start + 4 : start + 5] == b"\x01" else 0)  # wide times
            matrix = np.frombuffer(movie[offset : offset + 20].ljust(20, b"\0"), dtype=">i4")
            if matrix[1] or matrix[3] or matrix[0] < 0 or matrix[4] < 0:
                return True
            start = movie.find(kind, start + 4)
    return False
