"""Tables: Kinetics, user-defined columns and GMDCSA24."""

import logging
import math
import re
from collections.abc import Iterator

from vidtl.annotations.formats.builder import RecordsBuilder
from vidtl.annotations.formats.source import AnnotationSource, Row, seconds
from vidtl.annotations.layout import Fields, check_relative, join
from vidtl.errors import UserError

_NUMBER = r"(\d+(?:\.\d*)?)"
_SPAN = rf"\s*{_NUMBER}(?:\s*to\s*|\s+){_NUMBER}\s*"
_TIMES = re.compile(_SPAN)
_ACTIVITY = re.compile(
    r"\s*([A-Za-z]+(?:\s*\([A-Za-z]*\)?)?)\s*"  # Falling (BW), or without the closing bracket
    rf"(?:\[({_SPAN}(?:;{_SPAN})*)(?:;|\]))?"  # [0 to 0.5; 3.7 to 10], or closed by the next activity's semicolon
    r"(?:(?<=;)|[\s:]*(?:;|$))[\s:;]*"
)

_log = logging.getLogger(__name__)


def read_kinetics_csv(source: AnnotationSource) -> RecordsBuilder:
    """Read Kinetics' CSV files of DeepMind, CVDF and ActivityNet: one record per row, `<youtube id>_<start>_<end>`.

    The clip `time_start` to `time_end` of the YouTube video is a separate file. YouTube ids are not unique: six videos
    of Kinetics-600's validation set occur twice, with other times.
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        fields = _kinetics_fields(builder, row)
        video_id = f"{fields['id']}_{fields['start']:06d}_{fields['end']:06d}"
        builder.add(row, video_id, source.finder.find(fields))
        builder.label(row, str(fields["label"]))
    pattern = source.finder.expected_pattern(needs="start")

    def expected(video_id: str, label: str) -> str:
        youtube_id, start, end = video_id.rsplit("_", 2)
        return pattern.format(id=youtube_id, label=label, start=int(start), end=int(end))

    builder.complete(expected, _ambiguous(builder))
    return builder


def _kinetics_fields(builder: RecordsBuilder, row: Row) -> Fields:
    """Return the fields of name patterns; UserError for values that no file name can have."""
    columns, aliases, values = builder.source.columns, builder.source.dataset.aliases, row.values
    label, video_id = values["label"], values["id"]
    if not video_id:
        raise UserError(f"{row.where}: {columns['id']} is empty; every row needs one")
    check_relative(f"{label or 'label'}/{video_id}", row.where)
    times_s = [seconds(values[key], row, columns[key]) for key in ("start", "end")]
    if any(time_s % 1 for time_s in times_s):
        text = f"{columns['start']} is {values['start']!r}, {columns['end']} {values['end']!r}"
        raise UserError(f"{row.where}: {text}; Kinetics' times are whole seconds")
    start, end = map(int, times_s)
    if end <= start:
        raise UserError(f"{row.where}: {columns['end']} is {end}, not after {columns['start']}, {start}")
    return {"label": aliases.get(label, label), "id": video_id, "start": start, "end": end}


def _ambiguous(builder: RecordsBuilder) -> list[int]:
    """Return rows that share a file `<id>.mp4`, which contains one clip at most: all of them count as missing."""
    ids, paths = builder.ids.column(), builder.paths.column()
    ids_of_path: dict[str, set[str]] = {}
    repeated = [index for index in paths.repeated().tolist() if paths[index]]
    for index in repeated:
        ids_of_path.setdefault(paths[index], set()).add(ids[index])
    rows = [index for index in repeated if len(ids_of_path[paths[index]]) > 1]
    if rows:
        path, first = paths[rows[0]], builder.where(rows[0])
        if "start" not in builder.source.finder.fields:
            second = next(index for index in rows[1:] if paths[index] == path)
            problem = f"the file {path!r} is also that of {first}; one of `files` in dataset.yaml must use {{start}}"
            raise UserError(f"{builder.where(second)}: {problem}")
        _log.warning("%s: %d rows share a file with another row, as %r; they count as missing", first, len(rows), path)
    return rows


def read_labelled_table(source: AnnotationSource, dropped: str = "") -> RecordsBuilder:
    """Read tables of a path and a label per row, in columns that `dataset.yaml` names (CSV, JSON, Parquet).

    Single-label: a record per row. `start` and `end` select a part of the file; several rows may select parts of one
    file. The id is then a path with a media fragment, `walk.mp4#t=2.5,4` (W3C Media Fragments, 4.2.1).

    Multi-label: a record per file, with the labels of all its rows. `start` and `end` bound the labels of the row;
    without them, labels apply to the whole video. Labels of one row are separated by `;`, and a row may have none.

    With name patterns, the columns of their fields give the path, and the first pattern the id. The column `id` has ids
    of its own. Labels lose the characters `dropped`.
    """
    builder = RecordsBuilder(source)
    removed = str.maketrans("", "", dropped)
    rows_of_video: dict[tuple[str, str], list[Row]] = {}
    absent: dict[str, Fields] = {}
    for row in source.rows():
        video_id, path, fields = _video(source, row)
        if source.dataset.multi_label:
            rows_of_video.setdefault((video_id, path), []).append(row)
        else:
            start, end = _times(source, row)
            if (start > 0 or end < math.inf) and not row.values.get("id"):
                unit = "t" if source.dataset.time_unit == "seconds" else "frames"
                video_id += f"#{unit}={row.values.get('start') or '0'},{row.values.get('end', '')}".removesuffix(",")
            builder.add(row, video_id, path, (start, end))
            builder.label(row, source.class_name(row.values["label"].translate(removed), row))
        if not path:
            absent[video_id] = fields
    for (video_id, path), rows in rows_of_video.items():
        builder.add(rows[0], video_id, path)
        for row in rows:
            start, end = _times(source, row)
            whole = not row.values.get("start") and not row.values.get("end")
            for name in row.values["label"].split(source.dataset.separator) if row.values["label"] else []:
                builder.label(row, source.class_name(name.strip(), row), -math.inf if whole else start, end)
    if absent:
        pattern = source.finder.expected_pattern()
        builder.complete(lambda video_id, _: pattern.format_map(absent[video_id]))
    return builder


def _video(source: AnnotationSource, row: Row) -> tuple[str, str, Fields]:
    """Return id, path and fields of the video of a row; no path if name patterns match no file."""
    if not source.finder.fields:
        path = source.locate(row.values["path"], row)
        return row.values.get("id") or path, path, {}
    fields = {name: _pattern_value(source, row, name) for name in source.finder.fields}
    video_id = row.values.get("id") or source.finder.patterns[0].format_map(fields).removesuffix(".*")
    return video_id, source.finder.find(fields) or "", fields


def _pattern_value(source: AnnotationSource, row: Row, field: str) -> str | int:
    """Return a field of a name pattern: `{start*10}` is the whole number of tenths, any other one a text."""
    key, _, factor = field.partition("*")
    column = source.columns.get(key) or key
    if factor:
        return int(seconds(row.values[key], row, column) * int(factor))
    return check_relative(row.values[key] or ("unlabeled" if key == "label" else ""), f"{row.where}: {column}")


def _times(source: AnnotationSource, row: Row) -> tuple[float, float]:
    """Return start and end in seconds; 0 and infinity if the column or the value is absent."""
    first, last = row.values.get("start", ""), row.values.get("end", "")
    if not first and not last:
        return 0.0, math.inf
    start = source.time(first, row, source.columns["start"]) if first else 0.0
    end = source.time(last, row, source.columns["end"]) if last else math.inf
    if end <= start:
        names = source.columns
        raise UserError(f"{row.where}: {names['end']} is {last}, not after {names['start']}, {first or 0}")
    return start, end


def read_gmdcsa24(source: AnnotationSource) -> RecordsBuilder:
    """Read GMDCSA24's `ADL.csv` and `Fall.csv` in a folder per subject, with videos in folders of the same names.

    Times are not clipped to the column `Length (seconds)`, which is rounded and wrong in places (70 for 7).
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        name = check_relative(row.values["file"], f"{row.where}: {source.columns['file']}")
        root = source.root if row.file.is_relative_to(source.root) else row.file.parents[1]
        path = join(row.file.relative_to(root).with_suffix("").as_posix(), name)
        builder.add(row, path.rpartition(".")[0] or path, path)
        for activity in parse_activities(row.values["classes"], f"{row.where}: {source.columns['classes']}"):
            builder.label(row, *activity)
    return builder


def parse_activities(text: str, where: str) -> Iterator[tuple[str, float, float]]:
    """Yield name, start and end in seconds of each activity of a GMDCSA24 row; -inf and inf without times.

    `Sitting[0 to 0.5; 3.7 to 10]; Walking[0.5 to 3.1]` was typed by hand, and all unambiguous errors are accepted: a
    missing `]`, a missing `to`, a stray `:`, no times at all, ends before starts. UserError for any other text.
    """
    position = 0
    while position < len(text.rstrip("; ")):
        parsed = _ACTIVITY.match(text, position)
        if parsed is None:
            raise UserError(f"{where} has {text[position:]!r}; 'Name[start to end; ...]; ...' is needed")
        position = parsed.end()
        name = " ".join(parsed[1].split())
        if parsed[2] is None:
            yield name, -math.inf, math.inf
        for span in _TIMES.finditer(parsed[2] or ""):
            start, end = float(span[1]), float(span[2])
            yield name, start, max(start, end)
