"""The report of a data set as plain data: `report.json`, and the source of `report.txt`."""

import difflib
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.annotations.description import DatasetDescription
from vidtl.annotations.records import Records
from vidtl.data.manifest import Manifest
from vidtl.data.manifest_entry import Entry

# A search among the names of a folder of 240,000 files takes two seconds for each missing one.
_NEAR_NAMES = 10

_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}


def build_report(
    description: DatasetDescription, splits: Mapping[str, Records], root: Path, manifest: Manifest
) -> dict[str, Any]:
    """Build the report from the records, the manifest, and the content of files that may be duplicates."""
    wanted = {path for records in splits.values() for path in records.paths}
    entries = {entry.path: entry for entry in manifest if entry.path in wanted}
    broken = [entry for entry in entries.values() if entry.status not in ("ok", "missing")]
    return {
        "dataset": description.name,
        "title": description.title,
        "root": str(root),
        "manifest": str(manifest.file),
        "bytes_per_file": round(manifest.file.stat().st_size / max(1, len(manifest)), 1),
        "splits": {name: _split(records, entries, description.expected.get(name)) for name, records in splits.items()},
        "missing": _missing(splits, entries, root),
        "broken": _kinds(broken),
        "duplicates": {"listed_twice": _listed_twice(splits), "same_content": _same_content(splits, root, entries)},
        "classes": {name: _classes(records, entries) for name, records in splits.items()},
        "files": _files([entry for entry in entries.values() if entry.is_readable]),
    }


def _split(records: Records, entries: Mapping[str, Entry], expected: int | None) -> dict[str, Any]:
    """Count the rows of a split's annotation by status."""
    statuses = Counter(entries[path].status for path in records.paths)
    found = len(records) - statuses["missing"]
    return {
        "annotated": len(records),
        "expected": expected,
        "found": found,
        "missing": statuses["missing"],
        "ok": statuses["ok"],
        "damaged": statuses["damaged"],
        "unreadable": statuses["unreadable"] + statuses["crashed"] + statuses["hung"],
    }


def _missing(splits: Mapping[str, Records], entries: Mapping[str, Entry], root: Path) -> list[dict[str, str]]:
    rows = [
        {"split": name, "path": path, "row": records.origin(index)}
        for name, records in splits.items()
        for index, path in enumerate(records.paths)
        if entries[path].status == "missing"
    ]
    for row in rows[:_NEAR_NAMES]:
        row["near"] = _near_name(root, row["path"])
    return rows


def _near_name(root: Path, path: str) -> str:
    """Find a file with a similar name in the same folder, or describe a missing folder; "" where nothing is near."""
    folder, _, name = path.rpartition("/")
    names = _names(root / folder)
    if names is None:
        return f"there is no {'right to list the ' if os.path.isdir(root / folder) else ''}folder {folder!r}"
    by_lower = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.8)
    return f"{folder}/{by_lower[near[0]]}".removeprefix("/") if near else ""


@lru_cache(maxsize=64)
def _names(folder: Path) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError:
        return None


def _kinds(broken: Iterable[Entry]) -> list[dict[str, Any]]:
    """Group broken files by reason, most frequent first; reasons that differ in numbers are one kind."""
    kinds: dict[str, list[Entry]] = defaultdict(list)
    for entry in broken:
        kinds[re.sub(r"\d+", "N", entry.reason)].append(entry)
    return [
        {
            "kind": kind,
            "count": len(entries),
            "files": [{"path": entry.path, "status": entry.status, "reason": entry.reason} for entry in entries],
        }
        for kind, entries in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _listed_twice(splits: Mapping[str, Records]) -> list[dict[str, Any]]:
    """List the files of which several rows have the same segment."""
    rows: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, records in splits.items():
        for index, path in enumerate(records.paths):
            rows[path].append((name, index))
    repeated = {path: places for path, places in rows.items() if len(places) > 1}
    return [
        {
            "path": path,
            "splits": [name for name, _ in places],
            "rows": [splits[name].origin(index) for name, index in places],
        }
        for path, places in sorted(repeated.items())
        if len({_segment(splits[name], index) for name, index in places}) < len(places)
    ]


def _segment(records: Records, index: int) -> tuple[float, float]:
    return float(records.segment_starts_s[index]), float(records.segment_ends_s[index])


def _same_content(
    splits: Mapping[str, Records], root: Path, entries: Mapping[str, Entry]
) -> list[dict[str, list[str]]]:
    """Group readable files with the same content.

    Only files of the same size whose first and last 64 KiB agree are read whole.
    """
    candidates: dict[tuple[int, int], list[str]] = defaultdict(list)
    for entry in entries.values():
        if entry.is_readable and entry.fingerprint:
            candidates[entry.size, entry.fingerprint].append(entry.path)
    groups: dict[bytes, list[str]] = defaultdict(list)
    for paths in candidates.values():
        for path in paths if len(paths) > 1 else ():
            groups[_digest(root / path)].append(path)
    same = sorted(sorted(paths) for digest, paths in groups.items() if digest and len(paths) > 1)
    split_paths = {name: frozenset(records.paths) for name, records in splits.items()} if same else {}
    return [
        {"paths": group, "splits": sorted(name for name, paths in split_paths.items() if paths & {*group})}
        for group in same
    ]


def _digest(file: Path) -> bytes:
    """Hash a file; empty for one that is gone since the scan."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return b""


def _classes(records: Records, entries: Mapping[str, Entry]) -> dict[str, dict[str, int]]:
    """Count the annotated and the readable videos of each class."""
    videos, classes = records.distinct_labels()
    readable = np.array([entries[path].is_readable for path in records.paths])
    annotated = np.bincount(classes, minlength=len(records.classes)).tolist()
    usable = np.bincount(classes[readable[videos]], minlength=len(records.classes)).tolist()
    return {
        name: {"annotated": annotated[number], "readable": usable[number]}
        for number, name in enumerate(records.classes.names)
    }


def _files(entries: list[Entry]) -> dict[str, Any]:
    """Summarize lengths, sizes, rates and codecs of the readable files."""
    videos = [entry for entry in entries if entry.is_video]
    sizes = Counter("{1}x{0}".format(*entry.displayed_size) for entry in videos)
    rates = Counter(f"{entry.fps:.2f}".rstrip("0").rstrip(".") for entry in videos if entry.fps)
    codecs = Counter(f"{entry.codec} in {entry.container}" for entry in videos)
    return {
        "count": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "frames_total": sum(entry.num_frames for entry in entries),
        "hours": round(sum(entry.duration_s for entry in entries) / 3600, 3),
        "seconds": _quantiles([entry.duration_s for entry in videos]),
        "frames": _quantiles([float(entry.num_frames) for entry in videos]),
        "short_side": _quantiles([float(min(entry.displayed_size)) for entry in videos]),
        "sizes": dict(sizes.most_common()),
        "frame_rates": dict(rates.most_common()),
        "codecs": dict(codecs.most_common()),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.quantile(values, list(_QUANTILES.values()), method="nearest").tolist()
    return {name: round(value, 3) for name, value in zip(_QUANTILES, found, strict=True)}
