"""Reader for libraries that return whole RGB frames: decord and torchcodec.

For some files they return wrong frames without an error: PyAV scans first, and those known to fail are refused.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidtl.errors import UserError, install_extra
from vidtl.video.clip import ClipBuffer, change_matrix
from vidtl.video.limits import frame_decoded
from vidtl.video.reader import Orientation, PixelFormat, UnreadableVideo, VideoReader, View
from vidtl.video.safety import container_of_head
from vidtl.video.source import Source, unreadable
from vidtl.video.timeline import ScannedVideo, Timeline

_BATCH = 8  # whole frames held at once


class RGBLibrary(NamedTuple):
    """Functions of one decoding library."""

    name: str
    load: Callable[[], Any]
    open: Callable[[Any, Path, int], Any]
    """(library, path, stream) -> decoder of that stream, with a length in frames."""
    fetch: Callable[[Any, list[int], Timeline], np.ndarray]
    """(decoder, rising frame numbers, timeline) -> uint8 RGB [N, H, W, 3]."""


class RGBFramesReader(VideoReader):
    """One open file; see `VideoReader`."""

    def __init__(self, library: RGBLibrary, path: Path, scanned: ScannedVideo | None = None) -> None:
        """Open a file; UnreadableVideo for one that the library misreads, or that may lead it to other files."""
        module = library.load()
        self.path = path
        self._library = library
        with closing(Source(path, scanned)) as source, unreadable(path):
            self._check(_fault(library.name, source))
            self._geometry = source.geometry()._replace(orientation=Orientation())  # the library rotates frames
            # swscale's matrix for untagged pictures of any size, which the libraries use.
            self._decoded_matrix = source.color_if_untagged("bt601").matrix
            self.color = source.color
            self._timeline = source.timeline
            self.times_s, self.fps = source.times_s, source.timeline.fps
            self.height, self.width = self._geometry.height, self._geometry.width
            stream = source.stream.index
        with unreadable(path):
            self._decoder: Any = library.open(module, path, stream)
            found, count = len(self._decoder), len(self.times_s)
            self._check(f"counts {found} frames where {count} decode" if found != count else None)

    def _check(self, fault: str | None) -> None:
        if fault:
            raise UnreadableVideo(self.path, f"{self._library.name} {fault}; use data.decoder pyav")

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Decode all views in one pass; see `VideoReader.read`."""
        if pixel_format != "rgb":
            allowed = f"allowed with data.decoder {self._library.name}: 'rgb'"
            raise UserError(f"data.pixel_format is {pixel_format!r}; {allowed}")
        clip = ClipBuffer(views, frame_size, pixel_format, self._geometry)
        with unreadable(self.path):
            for start in range(0, len(clip.needed), _BATCH):
                numbers = clip.needed[start : start + _BATCH]
                frames = self._library.fetch(self._decoder, numbers, self._timeline)
                frame_decoded()
                for number, frame in zip(numbers, frames, strict=True):
                    clip.put(number, [frame])
        return change_matrix(clip.array, self._decoded_matrix, self.color.matrix)

    def close(self) -> None:
        """Free the decoder and the file; may be called twice."""
        self._decoder = None


def _fault(library: str, source: Source) -> str | None:
    """Return a fault of a library with such a file; each was found by comparing frames with a decode from the start."""
    index, container = source.timeline.index, source.container
    if container_of_head(source.path) != container or "%" in str(source.path):
        return "follows playlists and image patterns (%): it gets only files that begin as MP4, Matroska, AVI or FLV do"
    if container in ("mpegts", "mpeg"):
        return "seeks wrongly in transport and program streams"
    if source.damaged:
        return "delivers damaged frames"
    if source.orientation.is_mirrored():
        return "ignores mirroring"
    if max(component.bits for component in source.codec.format.components) > 8:
        return "resamples the chroma of more than 8 bits differently"
    if _breaks_after_seeks(source):
        return "delivers broken frames after a seek to a key frame that is no clean start"
    if library == "torchcodec" and container == "avi" and source.codec.has_b_frames:
        return "miscounts frames that are out of order and have no times (AVI)"
    delayed = container == "avi" and source.timeline.pts is not None and source.timeline.pts[0] > 0
    if library == "decord" and index is None and (delayed or source.codec.has_b_frames):
        return "seeks wrongly where frames that are delayed or out of order can only be counted"
    if library == "decord" and index is not None and index.has_leading_pictures():
        return "seeks wrongly between open groups of pictures"
    return None


def _breaks_after_seeks(source: Source) -> bool:
    """Check at three key frames if frames after a seek are marked as damaged; an encoder writes all alike."""
    index = source.timeline.index
    if index is None:
        return False
    keys = index.key_pts[1:]
    for key in {int(keys[place]) for place in (0, len(keys) // 2, -1)} if len(keys) else ():
        source.seek(key)
        if next((frame.is_corrupt for packet in source.packets() for frame in source.codec.decode(packet)), False):
            return True
    return False


def _load_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        message = "data.decoder is 'decord', which is not installed (it exists for Linux on x86-64 only); use 'pyav'"
        raise UserError(message) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _open_decord(library: Any, path: Path, stream: int) -> Any:
    # It picks FFmpeg's best stream, the one that was scanned. Any frame that it repairs or repeats is an error.
    return library.VideoReader(str(path), ctx=library.cpu(0), num_threads=1, fault_tol=1e-9)


def _fetch_decord(decoder: Any, numbers: list[int], timeline: Timeline) -> np.ndarray:
    frames = decoder.get_batch(numbers)
    # Its output type is a global switch that other libraries (pytorchvideo) set to torch.
    return np.asarray(frames.asnumpy() if hasattr(frames, "asnumpy") else frames.numpy())


DECORD = RGBLibrary("decord", _load_decord, _open_decord, _fetch_decord)  # 0.6


def _load_torchcodec() -> Any:
    try:
        return import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:  # the latter two: no FFmpeg, or one that it cannot load
        reason = str(error).strip().partition("\n")[0]
        needs = f"its package ({install_extra('torchcodec')}) and FFmpeg's libraries"
        raise UserError(f"data.decoder is 'torchcodec', which needs {needs}: {reason}; or use 'pyav'") from error


def _open_torchcodec(library: Any, path: Path, stream: int) -> Any:
    # "approximate" seeking returns wrong frames where the frame rate varies.
    options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "seek_mode": "exact"}
    return library.VideoDecoder(str(path), stream_index=stream, **options)


def _fetch_torchcodec(decoder: Any, numbers: list[int], timeline: Timeline) -> np.ndarray:
    frames = decoder.get_frames_at(numbers)
    times_s = frames.pts_seconds.numpy() - decoder.metadata.begin_stream_seconds
    if np.abs(times_s - timeline.times_s[numbers]).max() > 0.5 / timeline.fps:
        raise ValueError("torchcodec delivers frames of other times; use data.decoder pyav")
    return np.asarray(frames.data.numpy())


TORCHCODEC = RGBLibrary("torchcodec", _load_torchcodec, _open_torchcodec, _fetch_torchcodec)
