"""An open video file through PyAV, shared by all backends: stream, size, orientation, color and timeline."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from vidtl.video.clip import Geometry, color_of
from vidtl.video.limits import frame_decoded
from vidtl.video.reader import Color, Matrix, Orientation, UnreadableVideo
from vidtl.video.safety import may_be_rotated, path_of
from vidtl.video.timeline import ScannedVideo, Timeline, count_frames, scan_packets

MAX_PIXELS = 8192 * 4320
"""8K. A tiny file can announce pictures of gigabytes; the header is checked before any is decoded."""

_KEPT_BYTES = 64 << 20  # of frames that were decoded to count them, so that a clip does not decode them again

# Demuxers that may run. Playlists, concatenation scripts and SDP open other files or the network.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"

# decord's messages begin with the time and a line of its source, which would make equal reasons differ.
_LOG_PREFIX = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Convert every exception to `UnreadableVideo`: damaged files raise far more than FFmpeg's own errors."""
    try:
        yield
    except UnreadableVideo:
        raise
    except av.FFmpegError as error:
        raise UnreadableVideo(path, error.strerror or type(error).__name__) from error
    except Exception as error:
        reason = _LOG_PREFIX.sub("", str(error).strip().partition("\n")[0])
        raise UnreadableVideo(path, f"{type(error).__name__}: {reason}") from error


class Source:
    """A file and its best video stream (that of FFmpeg's tools), decoded in the calling thread.

    Loading workers run in parallel; threads cost more than they gain, survive no fork and outlive an unclosed reader.

    Attributes:
        coded_size: height and width before rotation.
        kept: all frames, if they had to be decoded to count them and are few; else None.
        damaged: the decoder marked a frame as damaged; False if the frames were not decoded.
    """

    def __init__(self, file: Path | BinaryIO, container: str, scanned: ScannedVideo | None = None) -> None:
        """Open the file and scan it, or check its header against an earlier scan; UnreadableVideo if that fails."""
        self.file = file
        self.path = path_of(file)
        self.kept: list[av.VideoFrame] | None = None
        self.damaged = False
        self._format = container
        with unreadable(self.path):
            self._container = self._open()
            try:
                self._select_stream()
                # Players assume BT.709 for untagged pictures of 720 lines or more, as the cameras that made them do.
                self.color = self.color_if_untagged("bt709" if self.coded_size[0] >= 720 else "bt601")
                if scanned is None:
                    self.timeline = self._scan()
                    self.orientation = self._read_orientation()
                else:
                    self._check_header(scanned)
                    self.timeline, self.orientation = scanned.timeline, scanned.orientation
                    self.damaged = scanned.damaged
            except BaseException:
                self.close()
                raise

    def _open(self) -> av.container.InputContainer:
        if not isinstance(self.file, Path):
            self.file.seek(0)
        return av.open(
            str(self.file) if isinstance(self.file, Path) else self.file,
            format=self._format,
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )

    def _select_stream(self) -> None:
        stream = self._container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise UnreadableVideo(self.path, "no video stream")
        self.stream = stream
        self.codec = stream.codec_context
        if self.codec is None:
            raise UnreadableVideo(self.path, "no decoder for its codec")
        self.codec.thread_type = "NONE"
        self.codec.thread_count = 1
        self.codec.options = {"max_pixels": str(MAX_PIXELS)}
        self.coded_size = height, width = self.codec.height, self.codec.width
        if height < 1 or width < 1 or self.codec.format is None:
            raise UnreadableVideo(self.path, "no frames: the header gives no picture size")
        if height * width > MAX_PIXELS:
            raise UnreadableVideo(self.path, f"pictures of {width} x {height} exceed the limit of 8192 x 4320")
        # dav1d reads the option for skipped pictures once, here, and it must be none.
        self.codec.open(strict=False)

    def close(self) -> None:
        """Free the file and the decoder; may be called twice."""
        self.kept = None
        self._container.close()

    def color_if_untagged(self, default: Matrix) -> Color:
        """Return the color of the stream from its tags, with a default for its matrix."""
        return color_of(self.codec.format, self.codec.colorspace, self.codec.color_range, default)

    def scanned(self) -> ScannedVideo:
        """Return the result of the scan."""
        return ScannedVideo(
            container=self._format,
            codec=self.codec.codec.canonical_name,
            time_base=Fraction(self.stream.time_base),
            rate=self.stream.average_rate or None,
            coded_size=self.coded_size,
            orientation=self.orientation,
            damaged=self.damaged,
            timeline=self.timeline,
        )

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
        found = (self._format, self.codec.codec.canonical_name, Fraction(self.stream.time_base), self.coded_size)
        if found != (scanned.container, scanned.codec, scanned.time_base, scanned.coded_size):
            raise UnreadableVideo(self.path, "its header is not the one that the manifest has; prepare the set again")

    def _scan(self) -> Timeline:
        codec, time_base, rate = self.codec.codec.canonical_name, self.stream.time_base, self.stream.average_rate
        timeline = scan_packets(self.packets(), self._format, codec, time_base, rate)
        timeline = timeline or count_frames(self._keep(self.decode_from_start()), time_base, rate)
        if timeline is None:
            raise UnreadableVideo(self.path, "no frames")
        return timeline

    def _keep(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        kept: list[av.VideoFrame] = []
        room = _KEPT_BYTES
        for frame in frames:
            self.damaged |= frame.is_corrupt
            room -= sum(plane.buffer_size for plane in frame.planes)
            if room < 0:
                kept.clear()
            else:
                kept.append(frame)
            yield frame
        self.kept = kept or None

    def _read_orientation(self) -> Orientation:
        if not may_be_rotated(self.file, self._format):
            return Orientation()
        for frame in self.kept or self.decode_from_start():
            return self.frame_orientation(frame)
        raise UnreadableVideo(self.path, "no frames")
