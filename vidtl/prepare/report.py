"""What a scan says about a data set, as plain data: `report.json`, and the source of the text for people."""

import difflib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.data.description_file import DatasetDescription
from vidtl.data.manifest import Manifest
from vidtl.data.manifest_entry import Entry
from vidtl.data.records import Records
from vidtl.prepare.duplicates import listed_twice, same_content

# A search among the names of a folder of 240,000 files takes two seconds for each missing one.
_NEAR_NAMES = 10

_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}

LOSS_WORTH_TELLING = 0.1
"""Share of a class's videos."""


def build_report(
    description: DatasetDescription, splits: Mapping[str, Records], root: Path, manifest: Manifest
) -> dict[str, Any]:
    """Everything about the files of the splits, from the records and the manifest (and the bytes of duplicates)."""
    paths = sorted({path for records in splits.values() for path in records.paths})
    rows = {path: manifest.find(path) for path in paths}
    entries = {path: manifest.entry(row) for path, row in rows.items() if row is not None}
    broken = [entry for entry in entries.values() if entry.status not in ("ok", "missing")]
    split_paths = {name: frozenset(records.paths) for name, records in splits.items()}
    return {
        "dataset": description.name,
        "title": description.title,
        "root": str(root),
        "manifest": str(manifest.file),
        "bytes_per_file": round(manifest.num_bytes / max(1, len(manifest)), 1),
        "splits": {name: _split(records, entries, description.expected.get(name)) for name, records in splits.items()},
        "missing": _missing(splits, entries, root),
        "broken": _kinds(broken),
        "duplicates": {
            "listed_twice": [
                {"path": path, "splits": names, "rows": rows} for path, names, rows in listed_twice(splits)
            ],
            "same_content": [
                {"paths": group, "splits": sorted(name for name, paths in split_paths.items() if paths & {*group})}
                for group in same_content(root, entries.values())
            ],
        },
        "classes": {name: _classes(records, entries) for name, records in splits.items()},
        "files": _files([entry for entry in entries.values() if entry.is_readable]),
    }


def _split(records: Records, entries: Mapping[str, Entry], expected: int | None) -> dict[str, Any]:
    """Counts of one split, by rows of its annotation."""
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
    """A file in the same folder with almost this name, or what is wrong with the folder; "" where nothing is near."""
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
    """Broken files by what is wrong, most frequent first; numbers do not make a kind of their own."""
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


def _classes(records: Records, entries: Mapping[str, Entry]) -> dict[str, dict[str, int]]:
    """For each class, how many of the split's videos have it, and how many of those can be read."""
    videos, classes = records.distinct_labels()
    readable = np.array([entries[path].is_readable for path in records.paths])
    annotated = np.bincount(classes, minlength=len(records.classes)).tolist()
    usable = np.bincount(classes[readable[videos]], minlength=len(records.classes)).tolist()
    return {
        name: {"annotated": annotated[number], "readable": usable[number]}
        for number, name in enumerate(records.classes.names)
    }


def _files(entries: list[Entry]) -> dict[str, Any]:
    """Lengths, sizes, rates and codecs of the readable files."""
    videos = [entry for entry in entries if entry.stream]
    sizes = Counter("{1}x{0}".format(*entry.stream.displayed_size) for entry in videos if entry.stream)
    rates = Counter(f"{entry.fps:.2f}".rstrip("0").rstrip(".") for entry in videos if entry.fps)
    codecs = Counter(f"{entry.stream.codec} in {entry.stream.container}" for entry in videos if entry.stream)
    return {
        "count": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "frames_total": sum(entry.num_frames for entry in entries),
        "hours": round(sum(entry.duration_s for entry in entries) / 3600, 3),
        "seconds": _quantiles([entry.duration_s for entry in videos]),
        "frames": _quantiles([float(entry.num_frames) for entry in videos]),
        "short_side": _quantiles([float(min(entry.stream.coded_size)) for entry in videos if entry.stream]),
        "sizes": dict(sizes.most_common()),
        "frame_rates": dict(rates.most_common()),
        "codecs": dict(codecs.most_common()),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.quantile(values, list(_QUANTILES.values()), method="nearest").tolist()
    return {name: round(value, 3) for name, value in zip(_QUANTILES, found, strict=True)}
