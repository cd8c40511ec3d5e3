"""The decord backend: RGB only, for comparison with other frameworks and where PyAV is not wanted.

decord decides alone which frame is which, and is wrong without a word for some files. The file is therefore scanned
through PyAV first, and refused where decord cannot be trusted, rather than read wrongly.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vidtl.data.decoding.clip import ClipBuffer
from vidtl.data.decoding.colour import change_matrix
from vidtl.data.decoding.orientation import Orientation
from vidtl.data.decoding.reader import PixelFormat, UnreadableVideo, View
from vidtl.data.decoding.source import Source, unreadable
from vidtl.errors import UserError

# Whole frames held at once.
_BATCH = 8


class DecordReader:
    """One open file; see `VideoReader`."""

    def __init__(self, path: Path, container: str) -> None:
        """Open a file whose first bytes are those of `container` (see `sniff_container`).

        Raises:
            UnreadableVideo: no video in it, or one whose frames decord gets wrong (the reason begins with "decord").
            UserError: decord is not installed.
        """
        decord = _import_decord()
        with closing(Source(path, container)) as source:
            _refuse_untrusted(source, container)
            self._geometry = source.geometry()._replace(orientation=Orientation())  # decord turns frames itself
            # swscale's default, which decord follows, whatever the size.
            self._decoded_matrix = source.colour_if_untagged("bt601").matrix
            self.colour = source.colour
            self.times_s, self.fps = source.timeline.times_s, source.timeline.fps
        self.path = path
        self.height, self.width = self._geometry.height, self._geometry.width
        with unreadable(path):
            # Any frame that decord repairs or repeats is an error.
            self._reader: Any = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
            if len(self._reader) != len(self.times_s):
                raise UnreadableVideo(
                    path,
                    f"decord counts {len(self._reader)} frames where {len(self.times_s)} decode; use data.decoder pyav",
                )

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Decode all views in one pass over the file; see `VideoReader.read`.

        Raises:
            UserError: `pixel_format` is "planar".
        """
        if pixel_format != "rgb":
            raise UserError(f"data.pixel_format is {pixel_format!r}; allowed with data.decoder decord: 'rgb'")
        clip = ClipBuffer(views, frame_size, pixel_format, self._geometry)
        with unreadable(self.path):
            for start in range(0, len(clip.needed), _BATCH):
                numbers = clip.needed[start : start + _BATCH]
                frames = self._reader.get_batch(numbers)
                # decord's output type is a global switch that other libraries (pytorchvideo) set to torch.
                array = frames.asnumpy() if hasattr(frames, "asnumpy") else frames.numpy()
                for number, frame in zip(numbers, array, strict=True):
                    clip.put(number, [frame])
        return change_matrix(clip.array, self._decoded_matrix, self.colour.matrix)

    def close(self) -> None:
        """Free the decoder and the file; closing twice is allowed."""
        self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise UserError(
            "data.decoder is 'decord', which is not installed (it exists for Linux on x86-64 only); use 'pyav'"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _refuse_untrusted(source: Source, container: str) -> None:
    """Raise for what decord 0.6 reads wrongly without a word.

    Each was found by comparing its frames with a decode from the start.
    """
    index = source.timeline.index
    if container in ("mpegts", "mpeg"):
        reason = "seeks wrongly in transport and program streams"
    elif index is None and source.codec.has_b_frames:
        reason = "seeks wrongly where frames out of order have no times (AVI)"
    elif index is not None and index.has_leading_pictures():
        reason = "seeks wrongly between open groups of pictures"
    elif source.damaged:
        reason = "delivers damaged frames"
    elif source.orientation.is_mirrored():
        reason = "ignores mirroring"
    elif max(component.bits for component in source.codec.format.components) > 8:
        reason = "resamples the chroma of more than 8 bits in a way of its own"
    else:
        return
    raise UnreadableVideo(source.path, f"decord {reason}; use data.decoder pyav")
