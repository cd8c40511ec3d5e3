"""The manifest of a data root: what a scan found in every file, so that training opens none without knowing it.

One `.npz` file of plain columns (no pickle) with a checksum over them, keyed by path relative to the root. A file that
is not in it, or has changed since (size or time of change), is opened as if there were no manifest; a manifest changes
no clip, it only saves the scan at open and the attempts to read what is known to be broken.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.data.layout import existing
from vidtl.data.manifest_entry import DEPTHS, STATUSES, Entry, Stream
from vidtl.data.manifest_file import Columns, read_columns, write_columns
from vidtl.data.records import Records, StringColumn
from vidtl.video import ScannedVideo, UnreadableVideo, VideoReader, open_video

FOLDER = ".vidtl"
"""Where a data root keeps its manifest. Hidden, so that no layout takes it for a folder of videos."""
FILE_NAME = "manifest.npz"

# Changed files that a process names before it says that there are more.
_NAMED_CHANGES = 3

_log = logging.getLogger(__name__)


class Stamp(NamedTuple):
    """What shows that a file has changed."""

    size: int
    mtime_ns: int


def file_stamp(path: Path) -> Stamp | None:
    """Size and time of change of a file, links followed; None where there is none."""
    try:
        status = os.stat(path)
    except NotADirectoryError:  # an image in a file of many: `cifar10.npz/train/17`
        return file_stamp(path.parent)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


class Manifest:
    """N scanned files in the order of their paths. Its columns are shared with forked workers and never copied."""

    def __init__(self, columns: Columns, file: Path) -> None:
        self.columns = columns
        self.file = file
        self._changed: set[str] = set()

    @classmethod
    def from_entries(cls, entries: Iterable[Entry], file: Path) -> "Manifest":
        """A manifest that is to be written to `file`; the order of the entries does not matter."""
        return cls(_columns_of(sorted(entries, key=lambda entry: entry.path.encode())), file)

    @classmethod
    def load(cls, file: Path) -> "Manifest":
        """Read a manifest and check it.

        Raises:
            UserError: no such file, damaged, or of another version.
        """
        return cls(read_columns(existing(file, "manifest")), file)

    def save(self) -> None:
        """Write the file whole or not at all; UserError where it cannot be written."""
        write_columns(self.columns, self.file)

    def __reduce__(self) -> tuple[Any, ...]:
        # For workers that are spawned: the path is sent, not megabytes of columns.
        return _load_cached, (self.file, file_stamp(self.file))

    def __len__(self) -> int:
        return len(self.columns.paths)

    def __iter__(self) -> Iterator[Entry]:
        return (self.entry(row) for row in range(len(self)))

    @property
    def num_bytes(self) -> int:
        """Memory of all columns."""
        return self.columns.num_bytes

    def find(self, path: str) -> int | None:
        """Row of a path relative to the root; None where it was not scanned."""
        wanted = path.encode()
        data, offsets = self.columns.paths.data, self.columns.paths.offsets
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = data[offsets[middle] : offsets[middle + 1]].tobytes()
            if found == wanted:
                return middle
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return None

    def entry(self, row: int) -> Entry:
        """Everything about one file."""
        columns = self.columns
        start, end = columns.timeline_offsets[row], columns.timeline_offsets[row + 1]
        stream = int(columns.stream[row])
        return Entry(
            path=columns.paths[row],
            status=STATUSES[columns.status[row]],
            reason=columns.reasons[int(columns.reason[row])],
            depth=DEPTHS[columns.depth[row]],
            size=int(columns.size[row]),
            mtime_ns=int(columns.mtime_ns[row]),
            fingerprint=int(columns.fingerprint[row]),
            num_frames=int(columns.num_frames[row]),
            num_decoded=int(columns.num_decoded[row]),
            duration_s=float(columns.duration_s[row]),
            stream=None if stream < 0 else Stream.from_numbers(columns.streams[stream].tolist(), columns.names),
            timeline=columns.timeline_data[start:end].tobytes(),
        )

    def consult(self, root: Path, path: str) -> ScannedVideo | None:
        """What is known about a video before it is opened; None: open it as if there were no manifest.

        Raises:
            UnreadableVideo: the file is known to be broken and has not changed since.
        """
        row = self.find(path)
        if row is None:
            return None
        columns = self.columns
        file = root / path
        stamp = file_stamp(file)
        if stamp is None or file.is_dir():
            return None  # opening tells why a file is missing; a folder's stamp says nothing about its images
        if stamp != (columns.size[row], columns.mtime_ns[row]):
            self._tell_changed(path, Stamp(int(columns.size[row]), int(columns.mtime_ns[row])), stamp)
            return None
        entry = self.entry(row)
        if not entry.is_readable:
            raise UnreadableVideo(file, entry.reason)
        return entry.scanned()

    def _tell_changed(self, path: str, before: Stamp, now: Stamp) -> None:
        if path in self._changed or len(self._changed) > _NAMED_CHANGES:
            return
        self._changed.add(path)
        if len(self._changed) > _NAMED_CHANGES:
            _log.warning(
                "more files have changed since %s was written; tools/prepare.py brings it up to date", self.file
            )
            return
        change = f"{before.size} bytes then, {now.size} now" if before.size != now.size else "another time of change"
        _log.warning(
            "%s has changed since %s was written (%s); it is scanned again when opened", path, self.file, change
        )


def default_file(root: Path) -> Path:
    """Where the manifest of a data root is looked for."""
    return root / FOLDER / FILE_NAME


def find_manifest(root: Path, setting: str) -> Manifest | None:
    """The manifest that `data.manifest` means: "auto", "none", or the path of a file or of the folder it is in.

    Raises:
        UserError: a path that does not exist, or a damaged manifest.
    """
    if setting == "none":
        return None
    if setting == "auto":
        file = default_file(root)
        if not file.is_file():
            return None
    else:
        file = existing(Path(setting), "data.manifest")
        file = existing(file / FILE_NAME, "data.manifest") if file.is_dir() else file
    return _load_cached(file, file_stamp(file))


def open_record(records: Records, index: int, decoder: str, manifest: Manifest | None) -> VideoReader:
    """Open the video of a record, with what the manifest knows about it; see `open_video`."""
    scanned = manifest.consult(records.root, records.paths[index]) if manifest else None
    return open_video(records.path(index), decoder, records.root, records.frame_rate, scanned)


@lru_cache(maxsize=4)
def _load_cached(file: Path, stamp: Stamp | None) -> Manifest:
    """Once per process, however many data sets of it ask."""
    manifest = Manifest.load(file)
    statuses = [STATUSES[number] for number in manifest.columns.status.tolist()]
    unreadable = sum(status not in ("ok", "damaged") for status in statuses)
    _log.info("manifest %s: %d files, %d of them unreadable", file, len(manifest), unreadable)
    return manifest


def _columns_of(entries: list[Entry]) -> Columns:
    reasons = sorted({"", *(entry.reason for entry in entries)})
    names = sorted({name for entry in entries if entry.stream for name in (entry.stream.container, entry.stream.codec)})
    name_numbers = {name: number for number, name in enumerate(names)}
    rows = [entry.stream.to_numbers(name_numbers) if entry.stream else None for entry in entries]
    streams = sorted({row for row in rows if row})
    stream_numbers: dict[tuple[int, ...] | None, int] = {row: number for number, row in enumerate(streams)} | {None: -1}
    reason_numbers = {reason: number for number, reason in enumerate(reasons)}

    def column(dtype: type[np.generic], values: Iterable[float]) -> NDArray[Any]:
        return np.fromiter(values, dtype, len(entries))

    return Columns(
        paths=StringColumn.from_strings(entry.path for entry in entries),
        reasons=StringColumn.from_strings(reasons),
        names=StringColumn.from_strings(names),
        streams=np.array(streams, np.int64).reshape(len(streams), Stream.NUM_NUMBERS),
        status=column(np.uint8, (STATUSES.index(entry.status) for entry in entries)),
        reason=column(np.int32, (reason_numbers[entry.reason] for entry in entries)),
        depth=column(np.uint8, (DEPTHS.index(entry.depth) for entry in entries)),
        size=column(np.int64, (entry.size for entry in entries)),
        mtime_ns=column(np.int64, (entry.mtime_ns for entry in entries)),
        fingerprint=column(np.uint64, (entry.fingerprint for entry in entries)),
        stream=column(np.int32, (stream_numbers[row] for row in rows)),
        num_frames=column(np.int32, (entry.num_frames for entry in entries)),
        num_decoded=column(np.int32, (entry.num_decoded for entry in entries)),
        duration_s=column(np.float64, (entry.duration_s for entry in entries)),
        timeline_data=np.frombuffer(b"".join(entry.timeline for entry in entries), np.uint8),
        timeline_offsets=np.cumsum([0, *(len(entry.timeline) for entry in entries)], dtype=np.int64),
    )
