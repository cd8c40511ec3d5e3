"""User-defined CSV files: a path and a label per row, in columns that `dataset.yaml` names."""

import math

from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder, Row, seconds
from vidtl.errors import UserError

COLUMNS: dict[str, str | None] = {"path": "path", "label": "label", "start": None, "end": None, "split": None}


def read_labelled_csv(source: AnnotationSource) -> RecordsBuilder:
    """Read a record per row (single-label), or a record per file with the labels of all its rows (multi-label)."""
    return _read_multi_label(source) if source.multi_label else _read_single_label(source)


def _read_single_label(source: AnnotationSource) -> RecordsBuilder:
    """Read rows whose `start` and `end` select a part of the file; several rows may select parts of one file.

    The id is then a path with a media fragment, `walk.mp4#t=2.5,4` (W3C Media Fragments, 4.2.1).
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        path = _path(source, row)
        start, end = _times(source, row)
        part = f"#t={row.values.get('start') or '0'},{row.values.get('end', '')}".removesuffix(",")
        builder.add(row, path if (start, end) == (0, math.inf) else path + part, path, (start, end))
        builder.label(row, row.values["label"])
    return builder


def _read_multi_label(source: AnnotationSource) -> RecordsBuilder:
    """Read rows whose `start` and `end` bound their labels; without them, labels apply to the whole video.

    Labels of one row are separated by `;`, and a row may have none.
    """
    rows: dict[str, list[Row]] = {}
    for row in source.rows():
        rows.setdefault(_path(source, row), []).append(row)
    builder = RecordsBuilder(source)
    for path, of_path in rows.items():
        builder.add(of_path[0], path, path)
        for row in of_path:
            start, end = _times(source, row)
            whole = not row.values.get("start") and not row.values.get("end")
            for name in row.values["label"].split(";") if row.values["label"] else []:
                builder.label(row, name.strip(), -math.inf if whole else start, end)
    return builder


def _path(source: AnnotationSource, row: Row) -> str:
    return source.locate(row.values["path"], f"{row.where}: {source.columns['path']}")


def _times(source: AnnotationSource, row: Row) -> tuple[float, float]:
    """Return start and end in seconds; 0 and infinity if the column or the value is absent."""
    texts = [row.values.get(column, "") for column in ("start", "end")]
    start = seconds(texts[0], row, source.columns["start"]) if texts[0] else 0.0
    end = seconds(texts[1], row, source.columns["end"]) if texts[1] else math.inf
    if end <= start:
        raise UserError(
            f"{row.where}: {source.columns['end']} is {texts[1]}, not after {source.columns['start']}, {start:g}"
        )
    return start, end
