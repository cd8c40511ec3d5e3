"""Kinetics' own CSV files, as DeepMind, CVDF and ActivityNet distribute them.

Header `label,youtube_id,time_start,time_end,split`; ActivityNet's copy of Kinetics-400 has a further column `is_cc`.
Columns that are not needed are ignored. The clip `time_start` to `time_end` of the YouTube video is a file of its own.
"""

import logging
from collections import Counter

from vidtl.data.formats.source import AnnotationSource, RecordsBuilder, Row, seconds
from vidtl.data.layout import Fields, check_relative
from vidtl.errors import UserError

COLUMNS: dict[str, str | None] = {
    "label": "label",
    "id": "youtube_id",
    "start": "time_start",
    "end": "time_end",
    "split": None,
}
PATTERN_FIELDS = frozenset({"label", "id", "start", "end"})

_log = logging.getLogger(__name__)


def read_kinetics_csv(source: AnnotationSource) -> RecordsBuilder:
    """One record per row, with the id `<youtube id>_<start>_<end>`.

    The YouTube id alone will not do: six videos of Kinetics-600's validation set are there twice, with other times.
    """
    builder = RecordsBuilder(source)
    absent: list[int] = []
    for row in source.rows():
        fields = _fields(source, row)
        path = source.finder.find(fields)
        if path is None:
            absent.append(len(builder.ids))
        builder.add(row, f"{fields['id']}_{fields['start']:06d}_{fields['end']:06d}", path or "")
        builder.label(row, str(fields["label"]))
    _name_absent(builder, absent + _ambiguous(builder))
    return builder


def _fields(source: AnnotationSource, row: Row) -> Fields:
    """What name patterns may use of a row; UserError for values that no file name can be made of."""
    columns, label, video_id = source.columns, row.values["label"], row.values["id"]
    for column in ("label", "id"):
        if not row.values[column]:
            raise UserError(f"{row.where}: {columns[column]} is empty; every row needs one")
    check_relative(f"{label}/{video_id}", row.where)
    start, end = _whole_seconds(source, row, "start"), _whole_seconds(source, row, "end")
    if end <= start:
        raise UserError(f"{row.where}: {columns['end']} is {end}, not after {columns['start']}, {start}")
    return {"label": source.aliases.get(label, label), "id": video_id, "start": start, "end": end}


def _ambiguous(builder: RecordsBuilder) -> list[int]:
    """Rows that lead to the same file: two clips of one YouTube video under a name like `<id>.mp4`.

    The file can show one of them at most, so none of them may have it.
    """
    shared = {path for path, count in Counter(filter(None, builder.paths)).items() if count > 1}
    rows = [index for index, path in enumerate(builder.paths) if path in shared]
    if rows:
        path = builder.paths[rows[0]]
        if "start" not in builder.source.finder.fields:
            second = builder.paths.index(path, rows[0] + 1)
            raise UserError(
                f"{builder.where(second)}: the file {path!r} is also that of {builder.where(rows[0])}; "
                "one of `files` in dataset.yaml must use {start}"
            )
        _log.warning(
            "%s: %d rows share their file with another row, as here %r; they count as missing",
            builder.where(rows[0]),
            len(rows),
            path,
        )
    return rows


def _name_absent(builder: RecordsBuilder, absent: list[int]) -> None:
    """Fill in where absent videos should be, once it is known which layout the others have."""
    pattern = builder.source.finder.expected_pattern(needs="start")
    for index in absent:
        video_id, start, end = builder.ids[index].rsplit("_", 2)
        label = builder.first_label(index)
        builder.paths[index] = pattern.format(id=video_id, label=label, start=int(start), end=int(end))


def _whole_seconds(source: AnnotationSource, row: Row, column: str) -> int:
    text = row.values[column]
    if text.isdecimal():
        return int(text)
    value = seconds(text, row, source.columns[column])
    if value != int(value):
        raise UserError(f"{row.where}: {source.columns[column]} is {text!r}; Kinetics' times are whole seconds")
    return int(value)
