"""Files that are there twice: listed by several rows, or with the same bytes under several names."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from vidtl.data.manifest_entry import Entry
from vidtl.data.records import Records


def listed_twice(splits: Mapping[str, Records]) -> list[tuple[str, list[str], list[str]]]:
    """Files of which several rows list the same part: path, splits, and the rows as `file:line`."""
    rows: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, records in splits.items():
        for index, path in enumerate(records.paths):
            rows[path].append((name, index))
    repeated = {path: places for path, places in rows.items() if len(places) > 1}
    return [
        (path, [name for name, _ in places], [splits[name].origin(index) for name, index in places])
        for path, places in sorted(repeated.items())
        if len({_segment(splits[name], index) for name, index in places}) < len(places)
    ]


def same_content(root: Path, entries: Iterable[Entry]) -> list[list[str]]:
    """Groups of readable files with the same bytes.

    Only files of the same size whose first and last 64 KiB agree are read whole.
    """
    candidates: dict[tuple[int, int], list[str]] = defaultdict(list)
    for entry in entries:
        if entry.is_readable and entry.fingerprint:
            candidates[entry.size, entry.fingerprint].append(entry.path)
    groups: dict[bytes, list[str]] = defaultdict(list)
    for paths in candidates.values():
        for path in paths if len(paths) > 1 else ():
            digest = _digest(root / path)
            if digest is not None:
                groups[digest].append(path)
    return sorted(sorted(paths) for paths in groups.values() if len(paths) > 1)


def _segment(records: Records, index: int) -> tuple[float, float]:
    return float(records.segment_starts_s[index]), float(records.segment_ends_s[index])


def _digest(file: Path) -> bytes | None:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:  # gone since the scan
        return None
