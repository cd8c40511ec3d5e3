"""What the backends share that hand over whole RGB frames, decord and torchcodec.

They decide alone which frame is which, and are wrong without a word for some files. The file is therefore scanned
through PyAV first, and refused where the backend cannot be trusted, rather than read wrongly.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.errors import UserError
from vidtl.video.clip import ClipBuffer
from vidtl.video.color import change_matrix
from vidtl.video.orientation import Orientation
from vidtl.video.reader import PixelFormat, UnreadableVideo, VideoReader, View
from vidtl.video.scanned import ScannedVideo
from vidtl.video.source import Source, unreadable

# Whole frames held at once.
_BATCH = 8


class WholeFrameReader(VideoReader):
    """One open file; see `VideoReader`. Subclasses say how their library opens, delivers, and where it errs."""

    name: str

    def __init__(self, path: Path, container: str, scanned: ScannedVideo | None = None) -> None:
        """Open a file whose first bytes are those of `container` (see `sniff_container`).

        Raises:
            UnreadableVideo: no video in it, or one whose frames the library gets wrong.
            UserError: the library is not installed.
        """
        library = self._import()
        self.path = path
        with closing(Source(path, container, scanned)) as source, unreadable(path):
            reason = _common_distrust(source, container) or self._distrust(source, container)
            if reason:
                raise UnreadableVideo(path, f"{self.name} {reason}; use data.decoder pyav")
            self._geometry = source.geometry()._replace(orientation=Orientation())  # the library turns frames itself
            # swscale's matrix for untagged pictures of any size, which the libraries follow.
            self._decoded_matrix = source.colour_if_untagged("bt601").matrix
            self.colour = source.colour
            self.times_s, self.fps = source.timeline.times_s, source.timeline.fps
            self.height, self.width = self._geometry.height, self._geometry.width
            stream = source.stream.index
        with unreadable(path):
            self._decoder: Any = self._open(library, stream)
            if len(self._decoder) != len(self.times_s):
                raise UnreadableVideo(
                    path,
                    f"{self.name} counts {len(self._decoder)} frames where {len(self.times_s)} decode; "
                    "use data.decoder pyav",
                )

    @abstractmethod
    def _import(self) -> Any:
        """The library, or a UserError that says how to get it."""

    @abstractmethod
    def _open(self, library: Any, stream: int) -> Any:
        """The library's decoder of that stream of the file, with a length in frames."""

    @abstractmethod
    def _fetch(self, numbers: list[int]) -> np.ndarray:
        """Frames by number (rising): uint8 RGB [N, H, W, 3]."""

    @abstractmethod
    def _distrust(self, source: Source, container: str) -> str | None:
        """What the library, and not the other one, does wrongly with such a file, if anything."""

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Decode all views in one pass over the file; see `VideoReader.read`.

        Raises:
            UserError: `pixel_format` is "planar".
        """
        if pixel_format != "rgb":
            raise UserError(f"data.pixel_format is {pixel_format!r}; allowed with data.decoder {self.name}: 'rgb'")
        clip = ClipBuffer(views, frame_size, pixel_format, self._geometry)
        with unreadable(self.path):
            for start in range(0, len(clip.needed), _BATCH):
                numbers = clip.needed[start : start + _BATCH]
                for number, frame in zip(numbers, self._fetch(numbers), strict=True):
                    clip.put(number, [frame])
        return change_matrix(clip.array, self._decoded_matrix, self.colour.matrix)

    def close(self) -> None:
        """Free the decoder and the file; closing twice is allowed."""
        self._decoder = None


def _common_distrust(source: Source, container: str) -> str | None:
    """What both libraries do wrongly without a word; each found by comparing frames with a decode from the start."""
    if container in ("mpegts", "mpeg"):
        return "seeks wrongly in transport and program streams"
    if source.damaged:
        return "delivers damaged frames"
    if source.orientation.is_mirrored():
        return "ignores mirroring"
    if max(component.bits for component in source.codec.format.components) > 8:
        return "resamples the chroma of more than 8 bits in a way of its own"
    if _breaks_after_seeks(source):
        return "delivers broken frames after a seek to a key frame that is no clean start"
    return None


def _breaks_after_seeks(source: Source) -> bool:
    """Whether the decoder does not vouch for what follows a seek; asked at three key frames, as an encoder sets all."""
    index = source.timeline.index
    if index is None:
        return False
    keys = index.key_pts[1:]
    for key in {int(keys[place]) for place in (0, len(keys) // 2, -1)} if len(keys) else ():
        source.seek(key)
        first = next((frame for packet in source.packets() for frame in source.codec.decode(packet)), None)
        if first is not None and first.is_corrupt:
            return True
    return False
