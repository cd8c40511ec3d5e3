"""Still images: single ones as videos of one frame, and what folders of frames share with them.

Pillow decodes, with a list of formats that it may use, and sizes are checked before any pixel is decoded. Images come
as RGB only: planar YUV would halve the colour resolution of pictures that are often as small as 32 x 32.
"""

from abc import abstractmethod
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vidtl.errors import UserError
from vidtl.video.clip import ClipBuffer, Geometry
from vidtl.video.orientation import Orientation
from vidtl.video.reader import Colour, PixelFormat, UnreadableVideo, VideoReader, View
from vidtl.video.source import MAX_PIXELS, unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Files that are read as images, in any letter case. The content may be another of the formats below."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

# A still has no rate, but there has to be one.
_STILL_FPS = 1.0


def decode_image(file: Path | BytesIO, path: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an image, turned and mirrored as its EXIF data asks. Transparency is dropped.

    Args:
        file: the image, as a regular file or its bytes.
        path: what it is called in messages.

    Raises:
        UnreadableVideo: truncated, damaged, none of the formats, animated, or more than 8192 x 4320 pixels.
    """
    with unreadable(path), _opened(file, path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def image_size(file: Path, path: Path) -> tuple[int, int]:
    """Height and width of an image as displayed, from its header; see `decode_image`."""
    with unreadable(path), _opened(file, path) as image:
        sideways = image.getexif().get(0x0112, 1) >= 5  # EXIF's Orientation: 5 to 8 have rows for columns
        return (image.width, image.height) if sideways else (image.height, image.width)


def _opened(file: Path | BytesIO, path: Path) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableVideo(path, f"not an image ({', '.join(_FORMATS)})") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise UnreadableVideo(path, f"{image.width} x {image.height} pixels exceed the limit of 8192 x 4320")
    if getattr(image, "is_animated", False):
        image.close()
        raise UnreadableVideo(path, "an animation; as a video file it can be read")
    return image


class StillReader(VideoReader):
    """Videos made of still images; see `VideoReader`. Subclasses say where frame i comes from."""

    colour = Colour("bt601", full_range=True)

    def __init__(self, path: Path, size: tuple[int, int], times_s: np.ndarray, fps: float) -> None:
        self.path = path
        self.height, self.width = size
        self.times_s = times_s
        self.fps = fps

    @abstractmethod
    def frame(self, number: int) -> np.ndarray:
        """Frame by number: uint8 RGB [H, W, 3]."""

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Read all views, each image once; see `VideoReader.read`.

        Raises:
            UserError: `pixel_format` is "planar".
        """
        if pixel_format != "rgb":
            raise UserError(f"data.pixel_format is {pixel_format!r}; allowed for images and folders of frames: 'rgb'")
        geometry = Geometry(len(self.times_s), Orientation(), self.height, self.width)
        clip = ClipBuffer(views, frame_size, pixel_format, geometry)
        for number in clip.needed:
            clip.put(number, [self.frame(number)])
        return clip.array

    def close(self) -> None:
        """Nothing stays open between frames."""


class ImageReader(StillReader):
    """One image as a video of one frame."""

    def __init__(self, path: Path, pixels: np.ndarray) -> None:
        """`pixels`: uint8 RGB [H, W, 3]."""
        super().__init__(path, (pixels.shape[0], pixels.shape[1]), np.zeros(1), _STILL_FPS)
        self._pixels = pixels

    def frame(self, number: int) -> np.ndarray:
        """The image."""
        return self._pixels
