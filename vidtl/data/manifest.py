"""The manifest of a data root: results of the last scan of every file, so that training opens videos without a scan.

One SQLite file with a row per path relative to the root. A file without a row, or with another size or modification
time than its row, is opened as if there were no manifest: a manifest never changes a clip, it only saves the scan at
open and attempts to read files that are known to be broken. `vidtl.prepare.manifest` writes it.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from vidtl.annotations.layout import existing
from vidtl.annotations.records import Records
from vidtl.data.manifest_entry import SCHEMA, Entry
from vidtl.errors import UserError
from vidtl.video import ScannedVideo, UnreadableVideo, VideoReader, open_video

FOLDER = ".vidtl"
"""Folder of the manifest in a data root. Hidden, so that no layout takes it for a folder of videos."""
FILE_NAME = "manifest.sqlite"
VERSION = 2
_OLD_FILE_NAME = "manifest.npz"  # version 1

APPLICATION_ID = int.from_bytes(b"vdtl")

# A bound on what a damaged or hostile file can make a reader allocate.
_MAX_VALUE_BYTES = 64 << 20

# Changed files that a process names before it only reports that there are more.
_NAMED_CHANGES = 3

_log = logging.getLogger(__name__)


class Stamp(NamedTuple):
    """Size in bytes and modification time of a file."""

    size: int
    mtime_ns: int


def file_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file, following links; None where there is none."""
    try:
        status = os.stat(path)
    except NotADirectoryError:  # an image in a file of many: `cifar10.npz/train/17`
        return file_stamp(path.parent)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


class Manifest:
    """Read-only entries by path. Every process opens a connection of its own at the first use."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._changed: set[str] = set()
        # By process: SQLite allows neither use nor close of a connection that came through a fork.
        self._connections: dict[int, sqlite3.Connection] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Manifest, (self.file,)

    def __len__(self) -> int:
        return int(next(self.rows("SELECT count(*) FROM files"))[0])

    def __iter__(self) -> Iterator[Entry]:
        """All entries in the order of the UTF-8 bytes of their paths."""
        for row in self.rows("SELECT * FROM files ORDER BY path"):
            yield checked_entry(row, self.file)

    def find(self, path: str) -> Entry | None:
        """Return the entry of a path relative to the root; None where it was not scanned."""
        row = next(self.rows("SELECT * FROM files WHERE path = ?", (path,)), None)
        return None if row is None else checked_entry(row, self.file)

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Run a query on the table `files`.

        Raises:
            UserError: the file is missing, damaged, no manifest or one of another version.
        """
        connection = self._connection()
        try:
            yield from connection.execute(query, values)
        except (sqlite3.Error, MemoryError) as error:
            raise damaged_manifest(self.file, error) from error

    def check(self) -> None:
        """Raise UserError for a file that is missing, no manifest, or of another version."""
        self._connection()

    def _connection(self) -> sqlite3.Connection:
        process = os.getpid()
        if process not in self._connections:
            self._connections[process] = _connect(self.file)
        return self._connections[process]

    def consult(self, root: Path, path: str) -> ScannedVideo | None:
        """Return the scan of an unchanged video; None: open it as if there were no manifest.

        Raises:
            UnreadableVideo: the file is broken and has not changed since the scan.
            UserError: the manifest is damaged.
        """
        entry = self.find(path)
        file = root / path
        stamp = file_stamp(file) if entry else None
        if entry is None or stamp is None or file.is_dir():
            return None  # opening gives the reason for a missing file; a folder's stamp does not cover its images
        if stamp != (entry.size, entry.mtime_ns):
            self._report_change(entry, stamp)
            return None
        if not entry.is_readable:
            raise UnreadableVideo(file, entry.reason)
        try:
            return entry.scanned()
        except (ValueError, ArithmeticError, MemoryError) as error:
            raise damaged_manifest(self.file, error) from error

    def _report_change(self, entry: Entry, now: Stamp) -> None:
        if entry.path in self._changed or len(self._changed) > _NAMED_CHANGES:
            return
        self._changed.add(entry.path)
        if len(self._changed) > _NAMED_CHANGES:
            _log.warning("more files have changed since their scan; tools/prepare.py brings %s up to date", self.file)
            return
        sizes = f"{entry.size} bytes then, {now.size} now"
        change = "another modification time" if entry.size == now.size else sizes
        _log.warning("%s has changed since its scan (%s); it is scanned again when opened", entry.path, change)


def checked_entry(row: tuple[Any, ...], file: Path) -> Entry:
    """Build the entry of a row; UserError for a damaged one."""
    try:
        return Entry.from_row(row)
    except ValueError as error:
        raise damaged_manifest(file, error) from error


def default_file(root: Path) -> Path:
    """Return the place of a data root's manifest."""
    return root / FOLDER / FILE_NAME


def find_manifest(root: Path, setting: str) -> Manifest | None:
    """Open the manifest of `data.manifest`: "auto", "none", or the path of a file or of its folder.

    Raises:
        UserError: the path does not exist, or the manifest is damaged or of another version.
    """
    if setting == "none":
        return None
    if setting == "auto":
        file = default_file(root)
        if not file.is_file():
            if file.with_name(_OLD_FILE_NAME).is_file():
                _log.warning(
                    "%s has an old format and is not used; run tools/prepare.py", file.with_name(_OLD_FILE_NAME)
                )
            return None
    else:
        file = existing(Path(setting), "data.manifest")
        file = existing(file / FILE_NAME, "data.manifest") if file.is_dir() else file
    return _open_once(file, file_stamp(file))


def open_record(records: Records, index: int, decoder: str, manifest: Manifest | None) -> VideoReader:
    """Open the video of a record with its entry in the manifest; see `open_video`."""
    scanned = manifest.consult(records.root, records.paths[index]) if manifest else None
    return open_video(records.path(index), decoder, records.root, records.frame_rate, scanned)


@lru_cache(maxsize=4)
def _open_once(file: Path, stamp: Stamp | None) -> Manifest:
    """Check the file once per process, however many data sets use it."""
    manifest = Manifest(file)
    counts = "SELECT count(*), total(status NOT IN ('ok', 'damaged')) FROM files"
    _log.info("manifest %s: %d files, %d of them unreadable", file, *next(manifest.rows(counts)))
    return manifest


def _connect(file: Path) -> sqlite3.Connection:
    """Open a file read-only and without locks, and check that it holds the table `files` and no code."""
    existing(file, "manifest")
    try:
        # immutable: finished files are only ever replaced; network file systems often have no locks
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        connection.executescript("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA cache_size = -512")
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        schema = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise damaged_manifest(file, error) from error
    if application != APPLICATION_ID:
        raise damaged_manifest(file, "another program wrote it")
    if version != VERSION:
        raise UserError(
            f"manifest {str(file)!r} has version {version}, allowed: {VERSION}; delete it, run tools/prepare.py again"
        )
    if schema != [(SCHEMA,)]:  # a view or trigger in its place would run code
        raise damaged_manifest(file, "it has other tables")
    return connection


def damaged_manifest(file: Path, reason: object) -> UserError:
    """Build the error of a damaged file."""
    first_line = (str(reason) or type(reason).__name__).partition("\n")[0]
    return UserError(
        f"manifest {str(file)!r} is damaged or no manifest ({first_line}); delete it and run tools/prepare.py again, "
        "or set data.manifest to 'none'"
    )
