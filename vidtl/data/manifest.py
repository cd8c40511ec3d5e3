"""The manifest of a data root: results of the last scan of every file, so that training opens videos without a scan.

One SQLite file with a row per path relative to the root, written by `vidtl.prepare.manifest`. A manifest never changes
a clip: a file without a row, or with another size or modification time than its row, is scanned when it is opened.
"""

import itertools
import logging
import math
import os
import re
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from vidtl.annotations.layout import check_inside
from vidtl.errors import UserError, existing
from vidtl.video.reader import Orientation, UnreadableVideo
from vidtl.video.timeline import MOST_FRAMES, ScannedVideo, unpack_timeline

FOLDER = ".vidtl"
"""Folder of the manifest in a data root. Hidden, so that no layout takes it for a folder of videos."""
FILE_NAME = "manifest.sqlite"
_VERSION = 2
_APPLICATION_ID = int.from_bytes(b"vdtl")

# Bounds on the memory and time that a damaged or hostile file can take.
_MAX_FILE_BYTES, _MAX_VALUE_BYTES, _MAX_REASON, _STEPS = 4 << 30, 16 << 20, 2000, 1000
_FRACTION = re.compile(r"0|[1-9]\d{0,9}(/[1-9]\d{0,9})?", re.ASCII)
_CHANGED = (
    "%s has another size or time than its scan (%d bytes then, %d now): scanned again; tools/prepare.py updates %s"
)

_log = logging.getLogger(__name__)

Status = Literal["ok", "damaged", "unreadable", "crashed", "hung", "missing"]
"""A damaged video opens, but not all of its frames decode; crashed and hung: the scan ended with its process."""
_UNREADABLE = "status NOT IN ('ok', 'damaged')"  # `Entry.is_readable` in SQL
Depth = Literal["packets", "frames"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
"""Depths of a scan, from quick to thorough."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One scanned or missing file: a row of the manifest. Fields are columns, in this order."""

    path: str
    """Relative to the root, with forward slashes."""
    status: Status
    reason: str
    """Message of opening the file, if it is not ok."""
    depth: Depth
    size: int = 0
    """Bytes; 0 for a missing file."""
    mtime_ns: int = 0
    fingerprint: int = 0
    """Hash of the size and of the first and last 64 KiB; 0 if it was not taken."""
    num_frames: int = 0
    num_decoded: int = -1
    """Frames that decode, undamaged and at their time; -1 if they were not all decoded."""
    duration_s: float = 0.0
    """From the first frame to the last."""
    container: str = ""
    """Empty for images and for files without a video stream; this and the next fields are those of `ScannedVideo`."""
    codec: str = ""
    coded_height: int = 0
    coded_width: int = 0
    transpose: bool = False
    mirror_rows: bool = False
    mirror_columns: bool = False
    marked_damaged: bool = False
    time_base: str = "0"
    rate: str = "0"
    """As a fraction, if the frames' times do not give it; else 0."""
    timeline: bytes = b""
    """See `pack_timeline`."""

    @classmethod
    def from_row(cls, row: tuple[Any, ...], file: Path) -> Self:
        """Build an entry from a row of a manifest file; UserError for a row that `to_row` did not make."""
        *values, checksum = row
        if checksum == zlib.crc32(repr(values).encode()) and [*map(type, values)] == _ROW_TYPES:
            entry = cls(**dict(zip(_KINDS, values, strict=True)))
            known = entry.status in get_args(Status) and entry.depth in DEPTHS and len(entry.reason) <= _MAX_REASON
            counts = entry.is_readable <= entry.num_frames <= MOST_FRAMES and 0 <= entry.duration_s < math.inf
            if known and counts and all(map(_FRACTION.fullmatch, (entry.time_base, entry.rate))):
                return entry
        raise damaged_manifest(file, "a row has a wrong checksum or type, or an unknown or impossible value")

    def to_row(self) -> tuple[Any, ...]:
        """Return the columns, with a checksum as the last one."""
        values = [int(value) if isinstance(value, bool) else value for value in vars(self).values()]
        return (*values, zlib.crc32(repr(values).encode()))

    @property
    def is_readable(self) -> bool:
        """True if opening the file can succeed."""
        return self.status in ("ok", "damaged")

    @property
    def is_video(self) -> bool:
        """True if a video stream was found."""
        return bool(self.container)

    def scanned(self) -> ScannedVideo | None:
        """Return the scan for opening the file; None for images. ValueError for a damaged row."""
        if not self.is_video:
            return None
        time_base, rate = Fraction(self.time_base), Fraction(self.rate) or None
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
_COLUMNS = ", ".join(f"{name} {_SQL_TYPES[kind]}" for name, kind in _KINDS.items())
SCHEMA = f"CREATE TABLE files ({_COLUMNS}, checksum INTEGER, PRIMARY KEY (path)) WITHOUT ROWID"
SET_UP = (f"PRAGMA application_id = {_APPLICATION_ID}", f"PRAGMA user_version = {_VERSION}", SCHEMA)
"""Statements that make an empty database a manifest."""


class Stamp(NamedTuple):
    """Size in bytes and modification time of a file."""

    size: int = 0
    mtime_ns: int = 0


def file_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file, following links; None if there is none."""
    try:
        status = os.stat(path)
    except NotADirectoryError:  # an image in a file of many: `cifar10.npz/train/17`
        return file_stamp(path.parent)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


class Manifest:
    """Read-only entries by path. Every process opens its own connection at the first use."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._reported_change = False
        # By process: SQLite allows neither use nor close of a connection that came through a fork.
        self._connections: dict[int, sqlite3.Connection] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Manifest, (self.file,)

    def __len__(self) -> int:
        return int(next(self.rows("SELECT total(1) FROM files"))[0])

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries in the order of the UTF-8 bytes of their paths."""
        return self._entries("ORDER BY path")

    def find(self, path: str) -> Entry | None:
        """Return the entry of a path relative to the root; None if it was not scanned."""
        return next(self._entries("WHERE path = ?", (path,)), None)

    def unreadable(self) -> Iterator[Entry]:
        """Yield the entries of files that could not be opened, or are missing."""
        return self._entries(f"WHERE {_UNREADABLE}")

    def _entries(self, clause: str, values: tuple[Any, ...] = ()) -> Iterator[Entry]:
        for row in self.rows(f"SELECT * FROM files {clause}", values):
            yield Entry.from_row(row, self.file)

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Run a query on the table `files`; UserError for a damaged file."""
        connection = self.connection()
        limit_steps(connection, self._num_bytes)
        try:
            yield from connection.execute(query, values)
        except (sqlite3.Error, MemoryError, UnicodeError) as error:
            raise damaged_manifest(self.file, error) from error

    def connection(self) -> sqlite3.Connection:
        """Return the connection of this process; UserError for a file that is missing or no manifest."""
        process = os.getpid()
        if process not in self._connections:
            self._connections[process] = _connect(self.file)
            self._num_bytes = self.file.stat().st_size
        return self._connections[process]

    def consult(self, root: Path, path: str) -> ScannedVideo | None:
        """Return the scan of an unchanged video, or None; UnreadableVideo if it is known to be broken."""
        entry, file = self.find(path), root / path
        stamp = file_stamp(file) if entry else None
        if not (entry and stamp) or (not entry.is_video and file.is_dir()):
            return None  # opening gives the reason for a missing file; a folder's stamp does not cover its images
        if stamp != (entry.size, entry.mtime_ns):
            if not self._reported_change:
                self._reported_change = True
                _log.warning(_CHANGED, path, entry.size, stamp.size, self.file)
            return None
        if not entry.is_readable:
            raise UnreadableVideo(file, entry.reason)
        try:
            return entry.scanned()
        except (ValueError, ArithmeticError, MemoryError) as error:
            raise damaged_manifest(self.file, error) from error


def default_file(root: Path) -> Path:
    """Return the path of a data root's manifest."""
    return root / FOLDER / FILE_NAME


def find_manifest(root: Path, setting: str) -> Manifest | None:
    """Open the manifest of `data.manifest`: "auto", "none", or the path of a file or of its folder."""
    file = default_file(root)
    if setting == "none" or (setting == "auto" and not (file.is_file() and check_inside(file, root, "manifest"))):
        return None
    if setting != "auto":
        file = existing(Path(setting), "data.manifest")
        file = existing(file / FILE_NAME, "data.manifest") if file.is_dir() else file
    return _open_once(file, file_stamp(file))


@lru_cache(maxsize=4)
def _open_once(file: Path, stamp: Stamp | None) -> Manifest:
    """Check the file once per process, however many data sets use it."""
    manifest = Manifest(file)
    counts = f"SELECT count(*), total({_UNREADABLE}) FROM files"
    _log.info("manifest %s: %d files, %d of them unreadable", file, *next(manifest.rows(counts)))
    return manifest


def _connect(file: Path) -> sqlite3.Connection:
    """Open a file read-only and without locks, and check that it holds the table `files` alone."""
    if not existing(file, "manifest").is_file() or file.stat().st_size > _MAX_FILE_BYTES:
        raise damaged_manifest(file, f"no file, or one of more than {_MAX_FILE_BYTES} bytes")
    try:
        # immutable: finished files are only ever replaced; network file systems often have no locks
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        limit_steps(connection, 0)  # a schema may have a million tables
        connection.executescript("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA cache_size = -512")
        ((application,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        schema = connection.execute("SELECT sql FROM sqlite_master").fetchmany(2)
    except (sqlite3.Error, ValueError) as error:  # texts of SQLite may be no UTF-8
        raise damaged_manifest(file, error) from error
    if (application, version) != (_APPLICATION_ID, _VERSION):
        raise damaged_manifest(file, f"another program wrote it, or version {version}; allowed: {_VERSION}")
    if schema != [(SCHEMA,)]:  # a view or trigger in its place would run code
        raise damaged_manifest(file, "it has other tables")
    return connection


def limit_steps(connection: sqlite3.Connection, num_bytes: int) -> None:
    """Interrupt statements that read more than so many bytes of rows, as where pages refer to others many times."""
    steps, most = itertools.count(), min(5 * num_bytes, 2 << 30) // _STEPS + 1  # the shortest rows take 1 step a byte
    connection.set_progress_handler(lambda: next(steps) > most, _STEPS)


def damaged_manifest(file: Path, reason: object) -> UserError:
    """Build the error of a damaged file."""
    first_line = (str(reason) or type(reason).__name__).partition("\n")[0]
    damage = f"manifest {str(file)!r} is damaged or no manifest ({first_line})"
    return UserError(f"{damage}; delete it and run tools/prepare.py again, or set data.manifest to 'none'")
