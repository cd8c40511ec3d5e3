"""Kinetics' CSV files of DeepMind, CVDF and ActivityNet.

Header `label,youtube_id,time_start,time_end,split`; ActivityNet's copy of Kinetics-400 has a further column `is_cc`.
Columns that are not needed are ignored. The clip `time_start` to `time_end` of the YouTube video is a separate file.
"""

import logging

from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder, Row, seconds
from vidtl.annotations.layout import Fields, check_relative, is_relative
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
    """Read one record per row, with the id `<youtube id>_<start>_<end>`.

    The YouTube id is not unique: six videos of Kinetics-600's validation set occur twice, with other times.
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        fields = _fields(builder, row)
        video_id = f"{fields['id']}_{fields['start']:06d}_{fields['end']:06d}"
        builder.add(row, video_id, source.finder.find(fields))
        builder.label(row, str(fields["label"]))
    ambiguous = _ambiguous(builder)
    pattern = source.finder.expected_pattern(needs="start")

    def expected(video_id: str, label: str) -> str:
        youtube_id, start, end = video_id.rsplit("_", 2)
        return pattern.format(id=youtube_id, label=label, start=int(start), end=int(end))

    builder.complete(expected, ambiguous)
    return builder


def _fields(builder: RecordsBuilder, row: Row) -> Fields:
    """Return the fields of name patterns; UserError for values that no file name can have."""
    source, values = builder.source, row.values
    label, video_id = values["label"], values["id"]
    if not label or not video_id:
        column = source.columns["id" if label else "label"]
        raise UserError(f"{row.where}: {column} is empty; every row needs one")
    # Every label occurs hundreds of times, and is checked once.
    if not (is_relative(video_id) and builder.has_label(label)) and not is_relative(f"{label}/{video_id}"):
        check_relative(f"{label}/{video_id}", row.where)
    start, end = values["start"], values["end"]
    start_s = int(start) if start.isdecimal() else _whole_seconds(source, row, "start")
    end_s = int(end) if end.isdecimal() else _whole_seconds(source, row, "end")
    if end_s <= start_s:
        columns = source.columns
        raise UserError(f"{row.where}: {columns['end']} is {end_s}, not after {columns['start']}, {start_s}")
    return {"label": source.aliases.get(label, label), "id": video_id, "start": start_s, "end": end_s}


def _ambiguous(builder: RecordsBuilder) -> list[int]:
    """Return rows with the same file: two clips of one YouTube video with a name like `<id>.mp4`.

    The file can contain one of them at most, so all of them count as missing.
    """
    paths = builder.paths()
    rows = [index for index in paths.repeated().tolist() if paths[index]]
    if rows:
        path = paths[rows[0]]
        if "start" not in builder.source.finder.fields:
            second = next(index for index in rows[1:] if paths[index] == path)
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


def _whole_seconds(source: AnnotationSource, row: Row, column: str) -> int:
    text = row.values[column]
    value = seconds(text, row, source.columns[column])
    if value != int(value):
        raise UserError(f"{row.where}: {source.columns[column]} is {text!r}; Kinetics' times are whole seconds")
    return int(value)
