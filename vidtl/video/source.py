"""An open video file through PyAV, shared by all backends: stream, size, orientation, color and timeline."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from vidtl.video.clip import Geometry, color_of
from vidtl.video.limits import frame_decoded
from vidtl.video.reader import Color, Matrix, Orientation, UnreadableVideo
from vidtl.video.safety import may_be_rotated, opened, path_of, why_no_video
from vidtl.video.timeline import ASSUMED_RATE, MOST_FRAMES, UNTIMED, ScannedVideo, Timeline, count_frames, scan_packets

MAX_PIXELS = 8192 * 4320
"""8K. A tiny file can announce pictures of gigabytes; the header is checked before any is decoded."""
_CLOCK_TOLERANCE_S = 1e-3  # starts are rounded
_KEPT_BYTES = 64 << 20  # of frames that were decoded to count them, so that a clip does not decode them again

# Demuxers that may run. Playlists, concatenation scripts and SDP open other files or the network.
_DEMUXERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,mxf,dv,ivf,yuv4mpegpipe,h264,hevc,mpegvideo,m4v,mjpeg"

_log = logging.getLogger(__name__)

_LOG_PREFIX = re.compile(r"^\[[\d:]+\] \S+:\d+: ")  # decord's time and line would make equal reasons differ


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Convert every exception to `UnreadableVideo`: damaged files raise far more than FFmpeg's own errors."""
    try:
        yield
    except UnreadableVideo:
        raise
    except Exception as error:
        reason = _LOG_PREFIX.sub("", str(error).strip().partition("\n")[0])
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {reason}"
        raise UnreadableVideo(path, reason) from error


class Source:
    """A file and its best video stream (that of FFmpeg's tools), decoded in the calling thread: others survive no fork.

    Attributes as in `ScannedVideo`, and:
        times_s: float64 [N]; presentation times of the frames in seconds from the start of the container.
        kept: all frames, if they had to be decoded to count them and are few; else None.
    """

    def __init__(self, file: Path | BinaryIO, scanned: ScannedVideo | None = None) -> None:
        """Open the file and scan it, or check its header against an earlier scan; UnreadableVideo if that fails."""
        self.file = file
        self.path = path_of(file)
        self.kept: list[av.VideoFrame] | None = None
        self.damaged = False
        self._format = scanned.container if scanned else None  # saves a probe, as does the second open of a file
        with unreadable(self.path):
            self._container = self._open()
            try:
                self._select_stream()
                # Players assume BT.709 for untagged pictures of 720 lines or more, as the cameras that made them do.
                self.color = self.color_if_untagged("bt709" if self.coded_size[0] >= 720 else "bt601")
                if scanned:
                    self._check_header(scanned)
                    self.timeline, self.orientation = scanned.timeline, scanned.orientation
                    self.damaged = scanned.damaged
                else:
                    self.timeline = self._scan()
                    self.orientation = self._read_orientation()
                self.times_s = self.timeline.times_s + self._first_frame_s()
            except BaseException:
                self.close()
                raise

    def _open(self) -> av.container.InputContainer:
        # Without a path, names do not influence FFmpeg's choice, and it cannot open any other file.
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "fd"}
        with opened(self.file) as stream:
            file: Any = "fd:"
            if isinstance(self.file, Path):
                options["fd"] = str(stream.fileno())
            else:
                file = SimpleNamespace(read=stream.read, seek=stream.seek, tell=stream.tell)
            try:
                container = av.open(file, format=self._format, options=options, metadata_errors="replace")
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:
                raise UnreadableVideo(self.path, why_no_video(self.file)) from error
        self.container = self._format = container.format.name.partition(",")[0]
        return container

    def _select_stream(self) -> None:
        stream = self._container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise UnreadableVideo(self.path, "no video stream")
        self.stream = stream
        self.codec = stream.codec_context
        if self.codec is None:
            raise UnreadableVideo(self.path, "no decoder for its codec")
        self.codec.thread_type, self.codec.thread_count = "NONE", 1
        self.codec.options = {"max_pixels": str(MAX_PIXELS)}
        self.coded_size = height, width = self.codec.height, self.codec.width
        if height < 1 or width < 1 or self.codec.format is None:
            raise UnreadableVideo(self.path, "no frames in the file itself, or encrypted ones: no size or pixel format")
        if height * width > MAX_PIXELS:
            raise UnreadableVideo(self.path, f"pictures of {width} x {height} exceed the limit of 8192 x 4320")
        # dav1d reads the option for skipped pictures once, here, and it must be none.
        self.codec.open(strict=False)

    @property
    def rate(self) -> Fraction | None:
        """Frame rate in the header, if there is one."""
        if self.container not in UNTIMED:
            return self.stream.average_rate or None
        # Demuxers make up an average rate; MPEG-4 part 2 has but the resolution of its clock.
        return None if self.container == "m4v" else self.codec.framerate or None

    def close(self) -> None:
        """Free the file and the decoder; may be called twice."""
        self.kept = None
        self._container.close()

    def color_if_untagged(self, default: Matrix) -> Color:
        """Return the color of the stream from its tags, with a default for its matrix."""
        return color_of(self.codec.format, self.codec.colorspace, self.codec.color_range, default)

    def scanned(self) -> ScannedVideo:
        """Return the result of the scan."""
        codec, time_base = self.codec.codec.canonical_name, Fraction(self.stream.time_base)
        of_pictures = (self.coded_size, self.orientation, self.damaged, self.timeline)
        return ScannedVideo(self.container, codec, time_base, self.rate, *of_pictures)

    def geometry(self) -> Geometry:
        """Return number, size and orientation of the frames."""
        size = self.orientation.displayed_size(*self.coded_size)
        return Geometry(len(self.timeline.times_s), self.orientation, *size)

    def seek(self, pts: int) -> None:
        """Seek to the demuxer's position of the last key frame at or before `pts`, and flush the decoder."""
        self._container.seek(pts, stream=self.stream)

    def packets(self) -> Iterator[av.Packet]:
        """Yield packets of the stream from the present position; the last one is empty."""
        yield from self._container.demux(self.stream)

    def decode_from_start(self) -> Iterator[av.VideoFrame]:
        """Yield every frame in presentation order: the reference for all other ways of reading."""
        self.restart()
        for packet in self.packets():
            for frame in self.codec.decode(packet):
                frame_decoded()
                yield frame

    def restart(self) -> None:
        """Open the file again: the only way back to the first packet that works in every container."""
        self._container.close()
        self._container = self._open()
        self._select_stream()

    def frame_orientation(self, frame: av.VideoFrame) -> Orientation:
        """Return the orientation in the display matrix of a decoded frame."""
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        return Orientation() if matrix is None else Orientation.from_matrix(bytes(matrix))

    def _check_header(self, scanned: ScannedVideo) -> None:
        found = (self.container, self.codec.codec.canonical_name, Fraction(self.stream.time_base), self.coded_size)
        if found != (scanned.container, scanned.codec, scanned.time_base, scanned.coded_size):
            raise UnreadableVideo(self.path, "its header is not the one that the manifest has; prepare the set again")

    def _scan(self) -> Timeline:
        codec, time_base, rate = self.codec.codec.canonical_name, self.stream.time_base, self.rate
        timeline = scan_packets(self.packets(), self.container, codec, time_base, rate)
        timeline = timeline or count_frames(self._keep(self.decode_from_start()), self.container, time_base, rate)
        if timeline is None:
            raise UnreadableVideo(self.path, "no frames")
        if len(timeline.times_s) > MOST_FRAMES:
            raise UnreadableVideo(self.path, f"{len(timeline.times_s)} frames exceed the limit of {MOST_FRAMES}")
        if timeline.pts is None and rate is None:
            _log.info("%s gives no frame rate; %d frames per second are assumed", self.path, ASSUMED_RATE)
        return timeline

    def _first_frame_s(self) -> float:
        """Return the seconds from the start of the container, which may begin with sound, to the first frame."""
        pts, start = self.timeline.pts, self._container.start_time
        if pts is None or start is None or self.container == "avi":  # whose first time is the delay of the decoder
            return 0.0
        offset_s = int(pts[0]) * float(self.stream.time_base) - start / av.time_base
        return offset_s if offset_s > _CLOCK_TOLERANCE_S else 0.0

    def _keep(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        kept: list[av.VideoFrame] = []
        room = _KEPT_BYTES
        for frame in frames:
            self.damaged |= frame.is_corrupt
            room -= sum(plane.buffer_size for plane in frame.planes)
            kept.append(frame)
            if room < 0:
                kept.clear()
            yield frame
        self.kept = kept or None

    def _read_orientation(self) -> Orientation:
        if not may_be_rotated(self.file, self.container):
            return Orientation()
        for frame in self.kept or self.decode_from_start():
            return self.frame_orientation(frame)
        raise UnreadableVideo(self.path, "no frames")
