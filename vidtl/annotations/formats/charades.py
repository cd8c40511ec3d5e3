"""Charades' CSV files: one row per video, with the times of its actions.

Columns `id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length`, of which three are
read. `actions` is `c092 11.90 21.20;c147 0.00 12.60` (class, start and end in seconds) or empty.
"""

import re

from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder, Row, seconds
from vidtl.annotations.layout import check_relative
from vidtl.errors import UserError

COLUMNS: dict[str, str | None] = {"id": "id", "actions": "actions", "length": "length", "split": None}
PATTERN_FIELDS = frozenset({"id"})

_ACTION = re.compile(r"c(\d+)\s+(\S+)\s+(\S+)")


def read_charades_csv(source: AnnotationSource) -> RecordsBuilder:
    """Read one record per row; a video without actions has no label.

    Almost a third of Charades' segments end after the video does, and a few start after it or end before they start.
    They are clipped to the video's length: the label is right for the video, and such a segment is (nearly) empty.
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        video_id = check_relative(row.values["id"], f"{row.where}: {source.columns['id']}")
        builder.add(row, video_id, source.finder.find({"id": video_id}))
        length = seconds(row.values["length"], row, source.columns["length"])
        for action in filter(None, map(str.strip, row.values["actions"].split(";"))):
            name, start, end = _parse_action(source, row, action)
            start = min(start, length)
            builder.label(row, name, start, max(start, min(end, length)))
    builder.complete(lambda video_id, _: source.finder.expected_pattern().format(id=video_id))
    return builder


def _parse_action(source: AnnotationSource, row: Row, action: str) -> tuple[str, float, float]:
    column = source.columns["actions"]
    parsed = _ACTION.fullmatch(action)
    if parsed is None:
        raise UserError(
            f"{row.where}: {column} has {action!r}; 'c<number> <start> <end>' with spaces between is needed"
        )
    assert source.classes is not None  # the description requires a list of classes for this format
    number, names = int(parsed[1]), source.classes.names
    if number >= len(names):
        raise UserError(f"{row.where}: {column} has {action!r}; classes are c000 to c{len(names) - 1:03d}")
    return names[number], seconds(parsed[2], row, column), seconds(parsed[3], row, column)
