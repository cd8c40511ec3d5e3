"""A row of a manifest: the result of the scan of one file."""

import zlib
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal, Self, get_args

from vidtl.video.orientation import Orientation
from vidtl.video.scanned import ScannedVideo, unpack_timeline

Status = Literal["ok", "damaged", "unreadable", "crashed", "hung", "missing"]
"""A damaged video opens, but not all of its frames decode; crashed and hung: the scan ended with its process."""
Depth = Literal["packets", "frames"]
DEPTHS: tuple[Depth, ...] = ("packets", "frames")
"""Depths of a scan, from quick to thorough."""

# A bound on what a hostile file can make a reader allocate.
_MAX_FRAMES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One scanned or missing file: a row of the manifest. Fields are columns, in this order."""

    path: str
    """Relative to the root, with forward slashes."""
    status: Status
    reason: str
    """Why it is not ok: the message that opening the file would give."""
    depth: Depth
    size: int = 0
    """Bytes, 0 for a missing file."""
    mtime_ns: int = 0
    fingerprint: int = 0
    """Hash of the size and of the first and last 64 KiB; 0 where it was not taken."""
    num_frames: int = 0
    num_decoded: int = -1
    """Frames that decode, undamaged and at their time; -1 where they were not all decoded."""
    duration_s: float = 0.0
    """From the first frame to the last."""
    container: str = ""
    """Empty for images, which need no scan, and for files in which no video was found."""
    codec: str = ""
    coded_height: int = 0
    """Before rotation."""
    coded_width: int = 0
    transpose: bool = False
    mirror_rows: bool = False
    mirror_columns: bool = False
    marked_damaged: bool = False
    """The decoder marked frames as damaged."""
    time_base: str = "0"
    """Fraction of a second."""
    rate: str = "0"
    """The header's frame rate as a fraction, where the frames' times do not give it; else 0."""
    timeline: bytes = b""
    """See `pack_timeline`."""

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """Build an entry from the columns of a row; ValueError for a row that `to_row` did not make."""
        *values, checksum = row
        if checksum != _checksum(values) or [*map(type, values)] != _ROW_TYPES:
            raise ValueError("a row has a wrong checksum or type")
        entry = cls(**dict(zip(_KINDS, values, strict=True)))
        if entry.status in _STATUSES and entry.depth in DEPTHS and 0 <= entry.num_frames <= _MAX_FRAMES:
            return entry
        raise ValueError("a row has an unknown status or depth, or too many frames")

    def to_row(self) -> tuple[Any, ...]:
        """Return the columns, with a checksum as the last one."""
        values = [int(value) if isinstance(value, bool) else value for value in vars(self).values()]
        return (*values, _checksum(values))

    @property
    def is_readable(self) -> bool:
        """True where opening the file can succeed."""
        return self.status in ("ok", "damaged")

    @property
    def is_video(self) -> bool:
        """True where a video stream was found; False for images."""
        return bool(self.container)

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Height and width after rotation."""
        size = (self.coded_height, self.coded_width)
        return size[::-1] if self.transpose else size

    @property
    def fps(self) -> float:
        """Average frame rate; 0 with fewer than two frames."""
        return (self.num_frames - 1) / self.duration_s if self.duration_s > 0 else 0.0

    def scanned(self) -> ScannedVideo | None:
        """Return the scan that opening the file needs; None for images. ValueError for a damaged row."""
        if not self.is_video:
            return None
        time_base, rate = _fraction(self.time_base), _fraction(self.rate) or None
        return ScannedVideo(
            container=self.container,
            codec=self.codec,
            time_base=time_base,
            rate=rate,
            coded_size=(self.coded_height, self.coded_width),
            orientation=Orientation(bool(self.transpose), bool(self.mirror_rows), bool(self.mirror_columns)),
            damaged=bool(self.marked_damaged),
            timeline=unpack_timeline(self.timeline, self.num_frames, time_base, rate),
        )


_SQL_TYPES: dict[Any, str] = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL", bytes: "BLOB"}
_KINDS: dict[str, Any] = {field.name: field.type if field.type in _SQL_TYPES else str for field in fields(Entry)}
_ROW_TYPES = [int if kind is bool else kind for kind in _KINDS.values()]
_STATUSES = frozenset(get_args(Status))
_COLUMNS = ", ".join(f"{name} {_SQL_TYPES[kind]}" for name, kind in _KINDS.items())
SCHEMA = f"CREATE TABLE files ({_COLUMNS}, checksum INTEGER, PRIMARY KEY (path)) WITHOUT ROWID"


def _checksum(values: list[Any]) -> int:
    return zlib.crc32(repr(values).encode())


def _fraction(text: str) -> Fraction:
    return Fraction(*map(int, text.split("/", 1)))
