"""Video files to uint8 clips: `open_video` gives a `VideoReader` of the chosen backend.

Whatever the backend, frames are those of a decode from start to end, in presentation order, each wanted one decoded
once; anything else is an `UnreadableVideo`.
"""

from collections.abc import Callable
from pathlib import Path

from vidtl.data.decoding.decord import DecordReader
from vidtl.data.decoding.pyav import PyAVReader
from vidtl.data.decoding.reader import Colour, PixelFormat, UnreadableVideo, VideoReader, View
from vidtl.data.decoding.sniff import checked_path, sniff_container
from vidtl.data.decoding.torchcodec import TorchcodecReader
from vidtl.errors import UserError, did_you_mean

__all__ = ["DECODERS", "Colour", "PixelFormat", "UnreadableVideo", "VideoReader", "View", "open_video"]

DECODERS: dict[str, Callable[[Path, str], VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
}


def open_video(path: Path, decoder: str = "pyav", root: Path | None = None) -> VideoReader:
    """Open a video file for reading clips; use the reader as a context manager.

    The path and the first bytes of the file are checked before any decoder sees either.

    Args:
        path: the file.
        decoder: one of `DECODERS`.
        root: folder that the file must lie in once symbolic links are followed; None allows any.

    Raises:
        UnreadableVideo: the file is missing, outside `root`, no regular file, no video container, or not decodable.
        UserError: `decoder` is unknown or not installed.
    """
    if decoder not in DECODERS:
        raise UserError(f"data.decoder is {decoder!r}; {did_you_mean(decoder, DECODERS)}")
    real = checked_path(path, root)
    return DECODERS[decoder](real, sniff_container(real))
