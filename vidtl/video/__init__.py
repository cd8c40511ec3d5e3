"""Videos to uint8 clips: `open_video` gives a `VideoReader` of a file, a folder of frames or an image.

Whatever the backend, frames are those of a decode from start to end, in presentation order, each wanted one decoded
once; anything else is an `UnreadableVideo`.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from vidtl.errors import UserError, did_you_mean
from vidtl.video.decord import DecordReader
from vidtl.video.frames import FrameFolderReader
from vidtl.video.images import IMAGE_SUFFIXES, ImageReader, decode_image
from vidtl.video.packed import open_packed_image
from vidtl.video.pyav import PyAVReader
from vidtl.video.reader import Colour, PixelFormat, UnreadableVideo, VideoReader, View, clip_shape
from vidtl.video.safety import checked_folder, checked_path, sniff_container
from vidtl.video.scanned import ScannedVideo
from vidtl.video.torchcodec import TorchcodecReader

__all__ = [
    "DECODERS",
    "Colour",
    "PixelFormat",
    "ScannedVideo",
    "UnreadableVideo",
    "VideoReader",
    "View",
    "clip_shape",
    "open_video",
]

DECODERS: dict[str, Callable[[Path, str, ScannedVideo | None], VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
}


def open_video(
    path: Path,
    decoder: str = "pyav",
    root: Path | None = None,
    frame_rate: float | None = None,
    scanned: ScannedVideo | None = None,
) -> VideoReader:
    """Open a video for reading clips; use the reader as a context manager.

    The path and the first bytes of a file are checked before any decoder sees either.

    Args:
        path: a video file, an image (a video of one frame), an image inside a file of many (see
            `vidtl.video.packed`), or a folder of numbered images.
        decoder: one of `DECODERS`, for video files.
        root: folder that the file must lie in once symbolic links are followed; None allows any.
        frame_rate: frames per second, for folders of images, which do not say.
        scanned: what an earlier scan of this very video file found, which spares one now (see `vidtl.data.manifest`).

    Raises:
        UnreadableVideo: the file is missing, outside `root`, no regular file, no video container, or not decodable.
        UserError: `decoder` is unknown or not installed.
    """
    if decoder not in DECODERS:
        raise UserError(f"data.decoder is {decoder!r}; {did_you_mean(decoder, DECODERS)}")
    kind = _kind(path)
    if kind == "packed":
        return open_packed_image(path, root)
    if kind == "folder":
        if frame_rate is None:
            raise UnreadableVideo(
                path, "not a regular file but a folder; with images in it, dataset.yaml must give their `frame_rate`"
            )
        return FrameFolderReader(checked_folder(path, root), frame_rate, root)
    real = checked_path(path, root)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(path, decode_image(real, path))
    return DECODERS[decoder](real, sniff_container(real), scanned)


def _kind(path: Path) -> Literal["file", "folder", "packed"]:
    """What a path leads to, as far as it can be told without opening anything; what is not there is a file."""
    try:
        return "folder" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
    except NotADirectoryError:
        return "packed"
    except (OSError, ValueError):
        return "file"
