"""Decode videos to uint8 clips: `open_video` returns a `VideoReader` of a file, a folder of frames or an image.

With every backend, frames are those of a decode from start to end, in presentation order; anything else raises
`UnreadableVideo`. This package depends on `vidtl.errors` and nothing else of vidtl.
"""

import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from vidtl.errors import UserError, did_you_mean
from vidtl.video.images import StillReader, decode_image, open_frame_folder
from vidtl.video.packed import open_packed_image
from vidtl.video.pyav import PyAVReader
from vidtl.video.reader import Box, Color, UnreadableVideo, VideoReader, View
from vidtl.video.rgb_frames import DECORD, TORCHCODEC, RGBFramesReader
from vidtl.video.safety import checked_path, path_of
from vidtl.video.suffixes import IMAGE_SUFFIXES
from vidtl.video.timeline import ScannedVideo

__all__ = ["DECODERS", "Box", "Color", "UnreadableVideo", "VideoReader", "View", "open_video"]

DECODERS: dict[str, Callable[[Any, ScannedVideo | None], VideoReader]] = {
    "pyav": PyAVReader,
    "decord": partial(RGBFramesReader, DECORD),
    "torchcodec": partial(RGBFramesReader, TORCHCODEC),
}


def open_video(
    file: Path | BinaryIO,
    decoder: str = "pyav",
    root: Path | None = None,
    frame_rate: float | None = None,
    scanned: ScannedVideo | None = None,
) -> VideoReader:
    """Open a video for reading clips; use the reader as a context manager.

    FFmpeg recognizes a file by its content alone, whatever its name, and opens nothing else.

    Args:
        file: path of a video, an image (a video of one frame), an image inside a file of many (`vidtl.video.packed`) or
            a folder of numbered images; or a seekable binary file object, which must stay open as long as the reader.
        decoder: a key of `DECODERS`, for videos; file objects need "pyav".
        root: folder that the file must lie in after symbolic links are followed; None allows any.
        frame_rate: frames per second of a folder of images.
        scanned: result of an earlier scan of the same video, which saves the scan now.

    UnreadableVideo: the file is missing, outside `root`, no regular file, no video, or not decodable. UserError:
    `decoder` is unknown or not installed, or cannot read file objects.
    """
    if decoder not in DECODERS:
        raise UserError(f"data.decoder is {decoder!r}; {did_you_mean(decoder, DECODERS)}")
    opened = file
    if isinstance(file, Path):
        try:
            mode = file.stat().st_mode
        except NotADirectoryError:
            return open_packed_image(file, root)
        except (OSError, ValueError):
            mode = 0  # `checked_path` gives the reason
        if stat.S_ISDIR(mode):
            if frame_rate is None:
                raise UnreadableVideo(file, "a folder, not a regular file; a folder of images needs a `frame_rate`")
            return open_frame_folder(checked_path(file, root, folder=True), frame_rate, root)
        opened = checked_path(file, root)
    elif decoder != "pyav":
        raise UserError(f"data.decoder is {decoder!r}; allowed for file objects: 'pyav'")
    if path_of(file).suffix.lower() in IMAGE_SUFFIXES:
        pixels = decode_image(opened, path_of(file))
        return StillReader(path_of(file), lambda number: pixels, pixels.shape)
    return DECODERS[decoder](opened, scanned)
