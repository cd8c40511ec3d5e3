"""Still images: single ones as videos of one frame, and folders of numbered ones as videos.

Sizes are checked before any pixel is decoded, to RGB: planar YUV would halve the colors of small pictures.
"""

import os
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vidtl.errors import UserError
from vidtl.video.clip import ClipBuffer, Geometry
from vidtl.video.limits import frame_decoded
from vidtl.video.reader import Color, Orientation, PixelFormat, UnreadableVideo, VideoReader, View
from vidtl.video.safety import checked_path, opened
from vidtl.video.source import MAX_PIXELS, unreadable
from vidtl.video.suffixes import IMAGE_SUFFIXES

_MOST_BYTES, _MOST_SCANS = 512 << 20, 100  # libjpeg decodes every scan over the whole picture
_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e][\x01-\x04]")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
# No frames: hidden files, optical flow that extraction tools (denseflow) put beside them, covers of media libraries.
_NO_FRAME = re.compile(r"(\..*)?|flow_[xy]_?\d+|cover|folder|poster|preview|thumb(nail)?", re.IGNORECASE | re.DOTALL)


class StillReader(VideoReader):
    """A video made of still images; see `VideoReader`."""

    color = Color("bt601", full_range=True)

    def __init__(
        self, path: Path, frame: Callable[[int], np.ndarray], size: tuple[int, ...], count: int = 1, fps: float = 1.0
    ) -> None:
        """Make a video of images from `frame`: number -> uint8 RGB [H, W, 3] of `size`; frame i is at i / `fps` s."""
        self.path, self.frame, self.fps = path, frame, fps
        self.height, self.width, *_ = size
        self.times_s = np.arange(count) / fps

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Read all views, each image once; see `VideoReader.read`."""
        if pixel_format != "rgb":
            raise UserError(f"data.pixel_format is {pixel_format!r}; allowed for images and folders of frames: 'rgb'")
        geometry = Geometry(len(self.times_s), Orientation(), self.height, self.width)
        clip = ClipBuffer(views, frame_size, pixel_format, geometry)
        for number in clip.needed:
            clip.put(number, [self.frame(number)])
        return clip.array

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""


def open_frame_folder(folder: Path, frame_rate: float, root: Path | None) -> StillReader:
    """Open a folder of numbered images (`img_00001.jpg`, `46GP8-000001.jpg`, `frame012_rgb.jpg`).

    Frame i has the i-th number, the one in which the names differ, and is shown at i / `frame_rate` s. Numbers rise by
    one step, such as 5. UnreadableVideo for no images, equal numbers or gaps, and in `read` for a damaged frame.
    """
    files = _numbered_images(folder)
    size = _image_size(checked_path(files[0], root), files[0])

    def frame(number: int) -> np.ndarray:
        file = files[number]
        pixels = decode_image(checked_path(file, root), file)
        height, width, _ = pixels.shape
        if (height, width) != size:
            raise UnreadableVideo(file, f"{width} x {height} pixels among frames of {size[1]} x {size[0]}")
        return pixels

    return StillReader(folder, frame, size, len(files), frame_rate)


def decode_image(file: Path | BinaryIO, path: Path) -> np.ndarray:
    """Decode an image, turned as in EXIF, to RGB uint8 [H, W, 3]; UnreadableVideo if damaged, animated or above 8K."""
    frame_decoded()
    with unreadable(path), _opened_image(file, path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _image_size(file: Path, path: Path) -> tuple[int, int]:
    with unreadable(path), _opened_image(file, path) as image:
        sideways = image.getexif().get(0x0112, 1) >= 5  # EXIF's Orientation: 5 to 8 have rows for columns
        return (image.width, image.height) if sideways else (image.height, image.width)


def _opened_image(file: Path | BinaryIO, path: Path) -> Image.Image:
    with opened(file) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size > _MOST_BYTES:
            raise UnreadableVideo(path, f"{size} bytes exceed the limit of {_MOST_BYTES}")
        stream.seek(0)
        content = stream.read()
    if (scans := len(_SCAN.findall(content))) > _MOST_SCANS:
        raise UnreadableVideo(path, f"{scans} scans exceed the limit of {_MOST_SCANS}")
    try:
        image = Image.open(BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableVideo(path, f"not an image ({', '.join(_FORMATS)})") from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableVideo(path, f"{image.width} x {image.height} pixels exceed the limit of 8192 x 4320")
    if getattr(image, "is_animated", False):
        raise UnreadableVideo(path, "an animation; as a video file it can be read")
    return image


def _numbered_images(folder: Path) -> list[Path]:
    try:
        stems = {name: name.rpartition(".")[0] for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES)}
    except OSError as error:
        raise UnreadableVideo(folder, error.strerror or str(error)) from error
    parts = {name: re.split(r"(\d+)", stems[name]) for name in sorted(stems) if not _NO_FRAME.fullmatch(stems[name])}
    series = sorted({"#".join(texts[::2]) for texts in parts.values()})
    if len(series) != 1:
        found = f"images of several series: {', '.join(map(repr, series[:5]))}" if series else "no images"
        raise UnreadableVideo(folder, found)
    columns = [[int(number) for number in column] for column in list(zip(*parts.values(), strict=True))[1::2]]
    differing = [column for column in columns if len(set(column)) > 1] or columns[-1:]
    if len(differing) != 1:
        found = f"{len(differing) or 'no'} numbers differ in the names of its images, such as {min(parts)!r}"
        raise UnreadableVideo(folder, found)
    frames = sorted(zip(differing[0], parts, strict=True))
    step = min((after - number for (number, _), (after, _) in pairwise(frames)), default=1)
    for (number, name), (after, next_name) in pairwise(frames):
        if number == after:
            raise UnreadableVideo(folder, f"{name!r} and {next_name!r} have the same number")
        if step and after != number + step:
            ends = f"{frames[0][0]} to {frames[-1][0]} by {step}"
            raise UnreadableVideo(folder, f"image {number + step} is missing, as numbers rise from {ends}")
    return [folder / name for _, name in frames]
