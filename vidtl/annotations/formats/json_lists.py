"""JSON annotations of AViD and Something-Something V2. Messages count the entries of a file from 1."""

import json
from pathlib import Path
from typing import Any

from vidtl.annotations.formats.source import AnnotationSource, Columns, RecordsBuilder, Row
from vidtl.annotations.layout import check_relative
from vidtl.errors import UserError

AVID_COLUMNS: Columns = {}
SSV2_COLUMNS: Columns = {"id": "id", "template": "template"}
PATTERN_FIELDS = frozenset({"id"})


def read_avid_json(source: AnnotationSource) -> RecordsBuilder:
    """Read `{"yrpxojhg.mp4": "playing harmonica", ...}`: a record per file name, `{id}`; `none` is a class, too."""
    builder = RecordsBuilder(source)
    for number, file in enumerate(source.annotations):
        for position, pair in enumerate(_read(file, "an object of file names and labels", pairs=True), start=1):
            row = Row(file, number, position, {}, is_entry=True)
            name, label = pair if isinstance(pair, tuple) else (None, None)
            if not isinstance(name, str) or not isinstance(label, str):
                raise UserError(f"{row.where}: {_short(pair)}; a file name and the name of a class are needed")
            _add(builder, row, check_relative(name, row.where), label)
    _name_absent(builder)
    return builder


def read_ssv2_json(source: AnnotationSource) -> RecordsBuilder:
    """Read `[{"id": "78687", "template": "Holding [something] next to [something]", ...}, ...]`.

    The class is the template without its brackets, as in `labels.json`.
    """
    columns = {key: str(name) for key, name in source.columns.items()}
    builder = RecordsBuilder(source)
    for number, file in enumerate(source.annotations):
        for position, entry in enumerate(_read(file, "a list of entries"), start=1):
            row = Row(file, number, position, {}, is_entry=True)
            if not isinstance(entry, dict) or not isinstance(entry.get(columns["id"]), str | int):
                raise UserError(f"{row.where}: {_short(entry)}; an object with {columns['id']!r} is needed")
            template = entry.get(columns["template"])
            if not isinstance(template, str):
                raise UserError(f"{row.where}: no {columns['template']!r}; a test list without labels cannot be used")
            video_id = check_relative(str(entry[columns["id"]]), row.where)
            _add(builder, row, video_id, template.replace("[", "").replace("]", ""))
    _name_absent(builder)
    return builder


def _add(builder: RecordsBuilder, row: Row, video_id: str, label: str) -> None:
    builder.add(row, video_id, builder.source.finder.find({"id": video_id}))
    builder.label(row, label)


def _name_absent(builder: RecordsBuilder) -> None:
    pattern = builder.source.finder.expected_pattern()
    builder.complete(lambda video_id, _: pattern.format(id=video_id))


def _read(file: Path, needed: str, pairs: bool = False) -> list[Any]:
    """Return the list in a file, or (`pairs`) the keys and values of its object, including repeated ones."""
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=list if pairs else None)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a JSON file ({error})") from None
    if not isinstance(content, list):
        raise UserError(f"{file}: {needed} is needed, not {_short(content)}")
    return content


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
