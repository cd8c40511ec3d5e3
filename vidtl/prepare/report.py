"""The report of a data set, as plain data (`report.json`) and as text (`report.txt`, examples instead of lists)."""

import difflib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.annotations.keys import DatasetDescription
from vidtl.annotations.records import Records
from vidtl.data.gaps import reason_kind
from vidtl.data.manifest import Entry, Manifest
from vidtl.video import UnreadableVideo
from vidtl.video.safety import checked_path
from vidtl.video.timeline import ASSUMED_RATE

_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
_NEAR_NAMES = 10  # a search among the names of a folder of 240,000 files takes two seconds
_EXAMPLES, _INDENT = 5, 12
_REPORTED_LOSS = 0.1  # share of a class's videos


def build_report(
    description: DatasetDescription, splits: Mapping[str, Records], root: Path, manifest: Manifest
) -> dict[str, Any]:
    """Build the report from the records, the manifest, and the content of files that may be duplicates."""
    paths = {path for records in splits.values() for path in records.paths}
    entries = {entry.path: entry for entry in manifest if entry.path in paths}
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
    return {
        "annotated": len(records),
        "expected": expected,
        "found": len(records) - statuses["missing"],
        **{status: statuses[status] for status in ("missing", "ok", "damaged")},
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
    """Find a file with a similar name in the same folder, or describe a missing folder; "" if nothing is near."""
    folder, _, name = path.rpartition("/")
    try:
        names = sorted(os.listdir(root / folder))
    except OSError:
        return f"there is no {'right to list the ' if os.path.isdir(root / folder) else ''}folder {folder!r}"
    by_lower = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.8)
    return f"{folder}/{by_lower[near[0]]}".removeprefix("/") if near else ""


def _kinds(broken: Iterable[Entry]) -> list[dict[str, Any]]:
    """Group broken files by reason, most frequent first; reasons that differ in numbers are one kind."""
    kinds: dict[str, list[dict[str, str]]] = defaultdict(list)
    for entry in broken:
        file = {"path": entry.path, "status": entry.status, "reason": entry.reason}
        kinds[reason_kind(entry.reason)].append(file)
    by_count = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"kind": kind, "count": len(files), "files": files} for kind, files in by_count]


def _listed_twice(splits: Mapping[str, Records]) -> list[dict[str, Any]]:
    """List the segments of files, or whole files, that several rows have."""
    rows: dict[tuple[str, float, float], list[tuple[str, int]]] = defaultdict(list)
    for name, records in splits.items():
        segments = zip(records.paths, records.segment_starts_s, records.segment_ends_s, strict=True)
        for index, segment in enumerate(segments):
            rows[segment].append((name, index))
    return [
        {"path": path, "splits": [name for name, _ in places], "rows": [splits[name].origin(i) for name, i in places]}
        for (path, *_), places in sorted(item for item in rows.items() if len(item[1]) > 1)
    ]


def _same_content(
    splits: Mapping[str, Records], root: Path, entries: Mapping[str, Entry]
) -> list[dict[str, list[str]]]:
    """Group readable files with the same content, reading only those whose size and ends agree."""
    candidates: dict[tuple[int, int], list[str]] = defaultdict(list)
    for entry in entries.values():
        if entry.is_readable and entry.fingerprint:
            candidates[entry.size, entry.fingerprint].append(entry.path)
    groups: dict[bytes, list[str]] = defaultdict(list)
    for path in (path for paths in candidates.values() if len(paths) > 1 for path in paths):
        with suppress(OSError, UnreadableVideo), checked_path(root / path, None).open("rb") as stream:  # gone since
            groups[hashlib.file_digest(stream, "blake2b").digest()].append(path)
    same = sorted(sorted(paths) for paths in groups.values() if len(paths) > 1)
    split_paths = {name: frozenset(splits[name].paths) for name in sorted(splits)} if same else {}
    return [
        {"paths": group, "splits": [name for name in split_paths if split_paths[name] & {*group}]} for group in same
    ]


def _classes(records: Records, entries: Mapping[str, Entry]) -> dict[str, dict[str, int]]:
    """Count the annotated and the readable videos of each class."""
    videos, classes = records.distinct_labels()
    readable = np.array([entries[path].is_readable for path in records.paths])
    usable = np.bincount(classes[readable[videos]], minlength=len(records.classes)).tolist()
    counts = zip(records.classes.names, records.class_counts().tolist(), usable, strict=True)
    return {name: {"annotated": all_, "readable": readable_} for name, all_, readable_ in counts}


def _files(entries: list[Entry]) -> dict[str, Any]:
    """Summarize lengths, sizes, rates and codecs of the readable files."""
    videos, assumed = [entry for entry in entries if entry.is_video], f" at {ASSUMED_RATE} frames per second (assumed)"
    sizes = [(entry.coded_width, entry.coded_height)[:: -1 if entry.transpose else 1] for entry in videos]
    rates = [(entry.num_frames - 1) / entry.duration_s for entry in videos if entry.duration_s > 0]
    return {
        "count": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "frames_total": sum(entry.num_frames for entry in entries),
        "hours": round(sum(entry.duration_s for entry in entries) / 3600, 3),
        "seconds": _quantiles([entry.duration_s for entry in videos]),
        "frames": _quantiles([entry.num_frames for entry in videos]),
        "short_side": _quantiles([min(size) for size in sizes]),
        "sizes": _counted(f"{width}x{height}" for width, height in sizes),
        "frame_rates": _counted(f"{rate:.2f}".rstrip("0").rstrip(".") for rate in rates if rate),
        "codecs": _counted(
            f"{entry.codec} in {entry.container}{'' if entry.timeline or entry.rate != '0' else assumed}"
            for entry in videos
        ),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    found = np.quantile(np.asarray(values, float), [*_QUANTILES.values()], method="nearest") if values else []
    return {name: round(float(value), 3) for name, value in zip(_QUANTILES, found, strict=False)}


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Format the report as text."""
    files = report["files"]
    size = f"{files['bytes'] / 1e9:.2f} GB" if files["bytes"] >= 1e8 else f"{files['bytes'] / 1e6:.1f} MB"
    duration = f"{files['hours']:,.1f} hours" if files["hours"] >= 1 else f"{60 * files['hours']:.1f} minutes"
    yield f"{report['title']} in {report['root']}"
    yield _row("readable", f"{files['count']:,} files, {size}, {files['frames_total']:,} frames, {duration}")
    yield from _split_lines(report["splits"])
    missing, twice, same = report["missing"], report["duplicates"]["listed_twice"], report["duplicates"]["same_content"]
    yield from _examples(f"missing: {len(missing):,}", [_missing_line(row) for row in missing])
    yield from _broken_lines(report["broken"])
    if twice:
        yield from ("", f"listed more than once: {len(twice):,} files", *_twice_lines(twice))
    across = sum(len(group["splits"]) > 1 for group in same)
    heading = f"same content: {len(same):,} groups of files" + (f", {across:,} across splits" if across else "")
    lines = [f"{' = '.join(group['paths'][:4])}  ({', '.join(group['splits'])})" for group in same]
    yield from _examples(heading, lines)
    yield ""
    for split, counts in report["classes"].items():
        yield from _class_lines(split, counts)
    for label, key, unit in (("lengths", "seconds", "s"), ("", "frames", "frames"), ("short side", "short_side", "px")):
        if files[key]:
            yield _row(label, ", ".join(f"{name} {value:g}" for name, value in files[key].items()) + f" {unit}")
    for key in ("sizes", "frame_rates", "codecs"):
        if files[key]:
            yield _row(key.replace("_", " "), _some([f"{name} ({count:,})" for name, count in files[key].items()]))


def _split_lines(splits: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    width = max(_INDENT, *(len(name) + 2 for name in splits))
    yield ""
    yield f"{'split':{width}}" + "".join(f"{column:>11}" for column in next(iter(splits.values())))
    for name, counts in splits.items():
        shown = ("-" if count is None else f"{count:,}" for count in counts.values())
        differs = counts["expected"] not in (None, counts["annotated"])
        remark = "   annotated and expected differ" if differs else ""
        yield f"{name:{width}}" + "".join(f"{text:>11}" for text in shown) + remark


def _examples(heading: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield a heading and the first lines, if there are any."""
    if lines:
        yield from ("", heading, *(f"  {line}" for line in lines[:_EXAMPLES]))
    if len(lines) > _EXAMPLES:
        yield f"  and {len(lines) - _EXAMPLES:,} more, in report.json"


def _missing_line(row: Mapping[str, str]) -> str:
    near = row.get("near", "")
    hint = f"; {near}" if near.startswith("there is no") else f"; near: {near}" if near else ""
    return f"{row['path']}  ({row['row']}{hint})"


def _broken_lines(kinds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if kinds:
        yield from ("", f"broken, by kind: {sum(kind['count'] for kind in kinds):,}")
    for kind in kinds:
        yield f"{kind['count']:>7,}  {kind['kind']}"
        for file in kind["files"][:2]:
            own = f": {file['reason']}" if file["reason"] != kind["kind"] else ""
            yield f"{'':9}{file['path']}{own}"


def _twice_lines(listed_twice: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    together = [" and ".join(file["splits"]) for file in listed_twice]
    for splits, count in Counter(together).most_common(_EXAMPLES):
        first = listed_twice[together.index(splits)]
        yield f"{count:>7,}  in {splits}, such as {first['path']} ({', '.join(first['rows'])})"


def _class_lines(split: str, counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    readable = sorted(count["readable"] for count in counts.values())
    spread = f"{readable[0]:,} to {readable[-1]:,} readable videos each, median {readable[len(readable) // 2]:,}"
    yield _row("classes", f"{split}: {len(counts):,}, {spread}")
    if empty := [name for name, count in counts.items() if not count["readable"]]:
        yield _row("", f"without any: {len(empty):,}: {_some(empty)}")
    worst = sorted(counts, key=lambda name: counts[name]["readable"] / max(1, counts[name]["annotated"]))
    totals = [(name, counts[name]["readable"], counts[name]["annotated"]) for name in worst]
    lost = [f"{name} ({n - kept:,} of {n:,})" for name, kept, n in totals if 0 < kept / max(1, n) < 1 - _REPORTED_LOSS]
    if lost:
        yield _row("", f"over {_REPORTED_LOSS:.0%} missing or unreadable: {len(lost):,}: {_some(lost)}")


def _row(label: str, text: str) -> str:
    return f"{label:{_INDENT}}{text}"


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _EXAMPLES:,} more" if len(items) > _EXAMPLES else ""
    return ", ".join(items[:_EXAMPLES]) + more
