"""The report of a data set as text: the most important first, examples instead of lists."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_EXAMPLES = 5
# Share of a class's videos.
_REPORTED_LOSS = 0.1
_INDENT = 12


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Format the report; control characters in names and paths are escaped."""
    lines = [
        *_heading(report),
        *_splits(report["splits"]),
        *_missing(report["missing"]),
        *_broken(report["broken"]),
        *_duplicates(report["duplicates"]),
        *_classes(report["classes"]),
        *_files(report["files"]),
    ]
    return [printable(line) for line in lines]


def printable(line: str) -> str:
    """Escape what is not plain text: names in downloaded archives may contain anything."""
    return line if line.isprintable() else ascii(line)[1:-1]


def _heading(report: Mapping[str, Any]) -> Iterator[str]:
    files = report["files"]
    size = f"{files['bytes'] / 1e9:.2f} GB" if files["bytes"] >= 1e8 else f"{files['bytes'] / 1e6:.1f} MB"
    yield f"{report['title']} in {report['root']}"
    yield _row("readable", f"{files['count']:,} files, {size}, {files['frames_total']:,} frames, {_duration(files)}")


def _duration(files: Mapping[str, Any]) -> str:
    hours = files["hours"]
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _splits(splits: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    columns = ("annotated", "expected", "found", "missing", "ok", "damaged", "unreadable")
    width = max(_INDENT, *(len(name) + 2 for name in splits))
    yield ""
    yield f"{'split':{width}}" + "".join(f"{name:>11}" for name in columns)
    for name, counts in splits.items():
        shown = ("-" if counts[column] is None else f"{counts[column]:,}" for column in columns)
        differs = counts["expected"] not in (None, counts["annotated"])
        remark = "   annotated and expected differ" if differs else ""
        yield f"{name:{width}}" + "".join(f"{text:>11}" for text in shown) + remark


def _missing(missing: Sequence[Mapping[str, str]]) -> Iterator[str]:
    if not missing:
        return
    yield ""
    yield f"missing: {len(missing):,}"
    for row in missing[:_EXAMPLES]:
        near = row.get("near", "")
        hint = f"; {near}" if near.startswith("there is no") else f"; near: {near}" if near else ""
        yield f"  {row['path']}  ({row['row']}{hint})"
    yield from _more(len(missing))


def _broken(kinds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not kinds:
        return
    yield ""
    yield f"broken, by kind: {sum(kind['count'] for kind in kinds):,}"
    for kind in kinds:
        yield f"{kind['count']:>7,}  {kind['kind']}"
        for file in kind["files"][:2]:
            own = f": {file['reason']}" if file["reason"] != kind["kind"] else ""
            yield f"{'':9}{file['path']}{own}"


def _duplicates(duplicates: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    twice, content = duplicates["listed_twice"], duplicates["same_content"]
    if twice:
        yield ""
        yield f"listed more than once: {len(twice):,} files"
        together = Counter(" and ".join(file["splits"]) for file in twice)
        for splits, count in together.most_common(_EXAMPLES):
            first = next(file for file in twice if " and ".join(file["splits"]) == splits)
            yield f"{count:>7,}  in {splits}, such as {first['path']} ({', '.join(first['rows'])})"
    if content:
        across = sum(len(group["splits"]) > 1 for group in content)
        yield ""
        yield f"same content: {len(content):,} groups of files" + (f", {across:,} across splits" if across else "")
        for group in content[:_EXAMPLES]:
            yield f"  {' = '.join(group['paths'][:4])}  ({', '.join(group['splits'])})"
        yield from _more(len(content))


def _classes(classes: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    yield ""
    for split, counts in classes.items():
        readable = sorted(count["readable"] for count in counts.values())
        middle = readable[len(readable) // 2]
        spread = f"{readable[0]:,} to {readable[-1]:,} readable videos each, median {middle:,}"
        yield _row("classes", f"{split}: {len(counts):,}, {spread}")
        empty = [name for name, count in counts.items() if not count["readable"]]
        if empty:
            yield _row("", f"without any: {len(empty):,}: {_some(empty)}")
        lost = {
            name: f"{name} ({count['annotated'] - count['readable']:,} of {count['annotated']:,})"
            for name, count in counts.items()
            if count["readable"] and count["readable"] < (1 - _REPORTED_LOSS) * count["annotated"]
        }
        if lost:
            worst = sorted(lost, key=lambda name: counts[name]["readable"] / counts[name]["annotated"])
            examples = _some([lost[name] for name in worst])
            yield _row("", f"over {_REPORTED_LOSS:.0%} missing or unreadable: {len(lost):,}: {examples}")


def _files(files: Mapping[str, Any]) -> Iterator[str]:
    for label, key, unit in (
        ("lengths", "seconds", " s"),
        ("", "frames", " frames"),
        ("short side", "short_side", " px"),
    ):
        if files[key]:
            numbers = ", ".join(f"{name} {value:g}" for name, value in files[key].items())
            yield _row(label, f"{numbers}{unit}")
    for label, key in (("sizes", "sizes"), ("frame rates", "frame_rates"), ("codecs", "codecs")):
        if files[key]:
            yield _row(label, _some([f"{name} ({count:,})" for name, count in files[key].items()]))


def _row(label: str, text: str) -> str:
    return f"{label:{_INDENT}}{text}"


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _EXAMPLES:,} more" if len(items) > _EXAMPLES else ""
    return ", ".join(items[:_EXAMPLES]) + more


def _more(count: int) -> Iterator[str]:
    if count > _EXAMPLES:
        yield f"  and {count - _EXAMPLES:,} more, in report.json"
