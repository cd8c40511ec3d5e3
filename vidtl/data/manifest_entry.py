"""One file of a manifest: what a scan found in it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, Literal, Self

from vidtl.data.records import StringColumn
from vidtl.video.orientation import Orientation
from vidtl.video.scanned import ScannedVideo, pack_timeline, unpack_timeline

Status = Literal["ok", "damaged", "unreadable", "crashed", "hung", "missing"]
Depth = Literal["packets", "frames"]

STATUSES: tuple[Status, ...] = ("ok", "damaged", "unreadable", "crashed", "hung", "missing")
"""In the order of their numbers in the file. A damaged video can be opened, but not all of its frames decode; the
others of an unreadable one never do. crashed and hung: the scan ended with the process that did it."""
DEPTHS: tuple[Depth, ...] = ("packets", "frames")
"""How far a scan looked, from quick to thorough."""


@dataclass(frozen=True)
class Stream:
    """A video's header: what must be the same when it is opened again."""

    NUM_NUMBERS: ClassVar = 12

    container: str
    codec: str
    coded_size: tuple[int, int]
    """Height and width before rotation."""
    transpose: bool
    mirror_rows: bool
    mirror_columns: bool
    damaged: bool
    time_base: tuple[int, int]
    rate: tuple[int, int]
    """The header's frame rate, where the frames' times do not say it; else 0 / 1."""

    def to_numbers(self, names: Mapping[str, int]) -> tuple[int, ...]:
        """As a row of `NUM_NUMBERS` numbers; container and codec by their numbers."""
        turns = (int(self.transpose), int(self.mirror_rows), int(self.mirror_columns), int(self.damaged))
        return (names[self.container], names[self.codec], *self.coded_size, *turns, *self.time_base, *self.rate)

    @classmethod
    def from_numbers(cls, numbers: Sequence[int], names: StringColumn) -> Self:
        """The way back."""
        container, codec, height, width, transpose, rows, columns, damaged, *rest = numbers
        base_up, base_down, rate_up, rate_down = rest
        return cls(
            container=names[container],
            codec=names[codec],
            coded_size=(height, width),
            transpose=bool(transpose),
            mirror_rows=bool(rows),
            mirror_columns=bool(columns),
            damaged=bool(damaged),
            time_base=(base_up, base_down),
            rate=(rate_up, rate_down),
        )

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Height and width after rotation."""
        height, width = self.coded_size
        return (width, height) if self.transpose else (height, width)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file that was scanned, or asked for and missing."""

    path: str
    """Relative to the root, with forward slashes."""
    status: Status
    reason: str
    """Why it is not ok; the words that opening the file would give."""
    depth: Depth
    size: int = 0
    """Bytes, 0 for a missing file."""
    mtime_ns: int = 0
    fingerprint: int = 0
    """Of the first and last 64 KiB and the size; 0 where it was not taken."""
    num_frames: int = 0
    num_decoded: int = -1
    """Frames that decode, undamaged and at their time; -1 where they were not all decoded."""
    duration_s: float = 0.0
    """From the first frame to the last."""
    stream: Stream | None = None
    """None where nothing was learnt, and for images, which need no scan."""
    timeline: bytes = b""

    @property
    def is_readable(self) -> bool:
        """Whether there is any point in opening the file."""
        return self.status in ("ok", "damaged")

    @property
    def fps(self) -> float:
        """Average frame rate; 0 where there is a single frame or none."""
        return (self.num_frames - 1) / self.duration_s if self.duration_s > 0 else 0.0

    def with_video(self, video: ScannedVideo) -> Self:
        """The entry of a file in which a scan found this."""
        timeline = video.timeline
        duration_s = float(timeline.times_s[-1])
        # Every header has a rate of its own where frames vary; it is only kept where it is needed.
        rate = video.rate if timeline.pts is None or duration_s == 0 else None
        return replace(
            self,
            num_frames=len(timeline.times_s),
            duration_s=duration_s,
            stream=Stream(
                container=video.container,
                codec=video.codec,
                coded_size=video.coded_size,
                transpose=video.orientation.transpose,
                mirror_rows=video.orientation.mirror_rows,
                mirror_columns=video.orientation.mirror_columns,
                damaged=video.damaged,
                time_base=video.time_base.as_integer_ratio(),
                rate=rate.as_integer_ratio() if rate else (0, 1),
            ),
            timeline=pack_timeline(timeline),
        )

    def scanned(self) -> ScannedVideo | None:
        """What opening the file needs to know; None for images."""
        if self.stream is None:
            return None
        stream = self.stream
        time_base, rate = Fraction(*stream.time_base), Fraction(*stream.rate) or None
        return ScannedVideo(
            container=stream.container,
            codec=stream.codec,
            time_base=time_base,
            rate=rate,
            coded_size=stream.coded_size,
            orientation=Orientation(stream.transpose, stream.mirror_rows, stream.mirror_columns),
            damaged=stream.damaged,
            timeline=unpack_timeline(self.timeline, self.num_frames, time_base, rate),
        )

    def to_json(self) -> dict[str, Any]:
        """For the journal of a scan."""
        return {**asdict(self), "timeline": base64.b64encode(self.timeline).decode()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The way back; KeyError, TypeError or ValueError for anything else."""
        stream = fields["stream"]
        if stream is not None:
            pairs = {name: tuple(stream[name]) for name in ("coded_size", "time_base", "rate")}
            stream = Stream(**{**stream, **pairs})
        return cls(**{**fields, "stream": stream, "timeline": base64.b64decode(fields["timeline"])})
