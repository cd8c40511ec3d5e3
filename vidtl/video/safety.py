"""Checks of a path and of the first bytes of a file, before any decoder opens it.

FFmpeg decides by content: a playlist named `.mp4` makes it open other files, and a path that begins with a protocol
makes it connect to a server. decord and torchcodec have no option against either.
"""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vidtl.video.reader import UnreadableVideo

# Enough for three packets of an MPEG transport stream.
_HEAD_BYTES = 1024

_ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}

# FFmpeg's input protocols (`ffmpeg -protocols`); a path component such as `concat:a|b` or `http:` starts with one.
_PROTOCOL = re.compile(
    r"^(async|bluray|cache|concat|concatf|crypto|data|dtls|fd|ffrtmp\w*|file|ftp|gophers?|hls|https?|httpproxy|icecast|"
    r"ip[fn]s(_gateway)?|lib(amqp|rist|smbclient|srt|ssh|zmq)|md5|mms[ht]|pipe|prompeg|rist|rtmp\w*|rtp|rtsp|sap|sctp|"
    r"sftp|shared|smb|srtp?|subfile|tcp|tee|tls|udp|udplite|unix|zmq)(\+\w+)?[:,]",
    re.IGNORECASE,
)


def checked_path(path: Path, root: Path | None) -> Path:
    """Return the real path of a regular file, inside `root` if one is given, after following symbolic links.

    Raises:
        UnreadableVideo: anything else, with the reason.
    """
    real, mode = _real_path(path, root)
    # Opening a FIFO would block forever, and opening a device can have any effect.
    if not stat.S_ISREG(mode):
        raise UnreadableVideo(path, "not a regular file")
    return real


def checked_folder(path: Path, root: Path | None) -> Path:
    """Return the real path of a folder; see `checked_path`."""
    real, mode = _real_path(path, root)
    if not stat.S_ISDIR(mode):
        raise UnreadableVideo(path, "not a folder")
    return real


def _real_path(path: Path, root: Path | None) -> tuple[Path, int]:
    """Return real path and mode of an existing path inside `root`."""
    if any(character in str(path) for character in "\0\n\r"):
        raise UnreadableVideo(path, "a path may not contain NUL or line breaks")
    if "://" in str(path) or any(_PROTOCOL.match(part) for part in path.parts):
        raise UnreadableVideo(path, "not a file name but a URL or a protocol")
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableVideo(path, reason) from error
    if root is not None and not real.is_relative_to(root.resolve()):
        raise UnreadableVideo(path, f"lies outside the data root {root}")
    return real, mode


def path_of(file: Path | BinaryIO) -> Path:
    """Return the path that error messages show: that of the file, or the name of a file object."""
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
    container = _container(head)
    if container is None:
        raise UnreadableVideo(path_of(file), "not a video container" if head else "the file is empty")
    return container


def _container(head: bytes) -> str | None:
    if head[4:8] in _ISO_BOXES:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"FLV\x01"):
        return "flv"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    # Transport streams: packets of 188 bytes, or 192 with a time code before each, that start with 0x47.
    if head[0:565:188] == b"\x47" * 4 or head[4:581:192] == b"\x47" * 4:
        return "mpegts"
    return None
