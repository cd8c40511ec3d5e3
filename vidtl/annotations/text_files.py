"""Read CSV files, text lists and lists of class names, with line numbers."""

import csv
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from vidtl.annotations.records import ClassNames, annotated_at
from vidtl.errors import UserError, did_you_mean

_NUMBER = re.compile(r"([A-Za-z]?)(\d{1,9})[.):]?")
_KEY = re.compile(r"\w+\s*:\s*(?=\d+$)")
_TITLE = r"class(?:es)?|labels?|names?|categor(?:y|ies)|actions?"
_HEADER = re.compile(rf"(?i)(?:(?:{_TITLE}|ids?|idx|index|no|num(?:ber)?|key|tag|verb|noun|text)[ _-]?)+")
_MAX_COLUMNS = 12

_log = logging.getLogger(__name__)

_Table = tuple[list[list[str]], Iterable[tuple[int, int]]]
"""Cells of all lines or JSON entries, and pairs of columns to try as number and name."""


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and stripped text of each line that is not blank."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for line, text in enumerate(stream, start=1):
                if stripped := text.strip():
                    yield line, stripped
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {error.start})") from None


def read_columns(
    file: Path, wanted: Mapping[str, str], optional: Collection[str] = (), lacking: list[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and columns of each row that is not blank; names and values are stripped.

    The `optional` columns may be absent; messages that name them are then added to `lacking`.
    """
    line, places = 1, list[tuple[str, int]]()
    try:
        # utf-8-sig drops the byte order mark that spreadsheets write
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for key, name in wanted.items():
                try:
                    places.append((key, _column(file, header, name)))
                except UserError as error:
                    if lacking is None or key not in optional or not header:
                        raise
                    lacking.append(str(error))
            line = reader.line_num + 1
            for fields in reader:
                if fields:
                    if len(fields) != len(header):
                        raise UserError(
                            f"{file}:{line}: {len(fields)} fields, the header has {len(header)}; "
                            "a field that contains a comma needs quotes"
                        )
                    yield line, {key: fields[place].strip() for key, place in places}
                line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}:{line}: not a row of a CSV file ({error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {error.start}); save it as CSV UTF-8") from None


def _column(file: Path, header: list[str], name: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise UserError(f"{file}:1: {header.count(name)} columns {name!r}; one is allowed")
    hint = did_you_mean(name, header) if header else "the file is empty"
    raise UserError(f"{file}:1: no column {name!r} among {', '.join(map(repr, header[:12]))}; {hint}")


class ClassList(NamedTuple):
    """Class names in the order of their numbers, and the name of each number in annotations."""

    names: ClassNames
    by_number: dict[int, str]


class _Reading:
    """One interpretation of a whole list: a number, or None, and a name for each line."""

    def __init__(self, table: list[list[str]], number: int, name: int) -> None:
        """Take number and name from these columns; `start` is 1 if the first line has their titles."""
        cells = [row if len(row) > max(number, name) else ["", ""] * _MAX_COLUMNS for row in table]
        titles = _unquoted(cells[0][name]), _unquoted(cells[0][number]) or "id"
        self.start = int(all(map(_HEADER.fullmatch, titles)))
        cells = cells[self.start :]
        matches = [_NUMBER.fullmatch(_unquoted(each[number])) for each in cells]
        prefix = next((match[1] for match in matches if match), "")
        self.numbers = [int(match[2]) if match and match[1] == prefix else None for match in matches]
        self.names = [_unquoted(each[name].strip(" \t,;:")) for each in cells]
        self.by_number = {n: name for n, name in zip(self.numbers, self.names, strict=True) if n is not None}
        names = set(self.by_number.values())
        self.repeats_names = len(names) < len(self.by_number)
        # Most lines are numbered, and their names differ: 'level 1', 'level 2' are names.
        differ = 2 * len(names) > len(self.by_number) and not all(map(str.isdecimal, names))
        self.is_plausible = differ and 2 * sum(n is not None for n in self.numbers) > len(cells)
        lowest, highest = min(self.by_number, default=0), max(self.by_number, default=0)
        self.gaps = [n for n in range(lowest, min(highest, lowest + 2 * len(cells))) if n not in self.by_number]

    def problem(self) -> tuple[str, int, int] | None:
        """Return why the numbers are not those of classes, with two lines that show it; None if they are."""
        first_at: dict[int | None, int] = {}
        for index, number in enumerate(self.numbers):
            if first_at.setdefault(number, index) != index and number is not None:
                return "repeats the number of", index, first_at[number]
        lowest, highest = first_at[min(self.by_number)], first_at[max(self.by_number)]
        if None in first_at:
            return "has no number, but most lines have one, as", first_at[None], lowest
        if min(self.by_number) > 1:
            return "has the lowest number, which is neither 0 nor 1; the highest is that of", lowest, highest
        if len(self.gaps) >= len(self.numbers):
            return "has a number beyond twice the number of lines; the lowest is that of", highest, lowest
        return None


def read_class_list(file: Path, numbered: bool = False) -> ClassList:
    """Read class names in the order of their numbers, or of the lines if these have none.

    Forms: a name per line; a number and a name in either order, with a comma, tab, semicolon, colon or space between;
    more columns, if a header names them; JSON objects of names and numbers, lists of names, and lists of objects.
    Numbers begin with 0 or 1, all with the same letter before them or none. One interpretation must hold for the whole
    file; missing numbers are logged. `numbered` requires lines `c000 name` without gaps.

    Raises:
        UserError: not UTF-8, no interpretation or several, an empty or repeated name.
    """
    is_json = file.suffix == ".json"
    try:
        text = file.read_text(encoding="utf-8-sig")
        lines = [line.strip() for line in text.rstrip().splitlines()]
        content = json.loads(text) if is_json else lines
        tables = list(_json_tables(content) if is_json else _tables(list(filter(None, lines))))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a text file in UTF-8 ({error})") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{file}: not a {'JSON file' if is_json else 'list of classes'} ({error})") from None
    entries = [f"{key}: {value}" for key, value in content.items()] if isinstance(content, dict) else content
    places = [
        (annotated_at(file, i, is_json), str(each)[:80]) for i, each in enumerate(entries if tables else (), 1) if each
    ]
    found = _one_reading(tables, places)
    if found is not None:
        by_number = dict(sorted(found.by_number.items()))
        if found.gaps:
            missing = ", ".join(map(str, found.gaps[:10])) + ", ..." * (len(found.gaps) > 10)
            _log.warning("%s: %d classes, in the order of their numbers; missing: %s", file, len(by_number), missing)
    elif isinstance(content, list) and all(isinstance(name, str) for name in content):
        by_number = dict(enumerate(_without_header(file, content) if content is lines else content))
    else:
        raise UserError(f"{file}: an object of class names and numbers, or a list of names, is needed")
    for number, line in enumerate(lines if numbered else ()):
        if line.split(maxsplit=1)[:1] != [f"c{number:03d}"]:
            raise UserError(f"{file}:{number + 1}: {line!r} does not begin with 'c{number:03d} '")
    try:
        return ClassList(ClassNames(tuple(by_number.values())), by_number)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _one_reading(tables: list[_Table], places: list[tuple[str, str]]) -> _Reading | None:
    """Return the one interpretation that holds, None if the list is not numbered; complete ones first.

    UserError with two lines, from their places and texts, if none holds or several do.
    """
    readings = [_Reading(table, *columns) for table, pairs in tables for columns in pairs]
    readings = [reading for reading in readings if reading.is_plausible]
    holding = [reading for reading in readings if reading.problem() is None]
    ranks = [(bool(reading.gaps), reading.repeats_names) for reading in holding]
    best = [reading for reading, rank in zip(holding, ranks, strict=True) if rank == min(ranks)]
    different = list({tuple(reading.by_number.items()): reading for reading in best}.values())
    if len(different) == 1 or not readings:
        return different[0] if different else None
    if different:
        names = " or ".join(f"{reading.numbers[0]} {reading.names[0]!r}" for reading in different[:2])
        first, problem = different[0], (f"may be {names}; quotes or a header decide; likewise", 0, -1)
    else:
        first = max(readings, key=lambda reading: len(reading.by_number))
        problem = first.problem() or ("", 0, 0)
    (place, text), (other_place, other) = (places[-len(first.numbers) :][index] for index in problem[1:])
    raise UserError(f"{place}: {text!r} {problem[0]} {other!r} ({other_place})")


def _tables(lines: list[str]) -> Iterator[_Table]:
    """Yield the cells of all lines by each separator: the first one apart, the last one apart, and all of them."""
    for separator in (",", "\t", ";", ":", None) if len(lines) > 1 else ():
        yield [line.split(separator, 1) for line in lines], [(0, 1)]
        yield [line.rsplit(separator, 1) for line in lines], [(1, 0)]
        if separator and separator != ":":
            rows = [next(csv.reader([line], delimiter=separator)) for line in lines]
            last = min(map(len, rows)) - 1  # a name at the end may contain the separator
            for place, row in enumerate(rows):
                cells = row if len(row) == last + 1 else lines[place].split(separator, last)
                rows[place] = [_KEY.sub("", cell.strip()) for cell in cells]  # `Clabel: 0; set: 1; name` of FineGym
            yield from _columns(rows)


def _columns(rows: list[list[str]]) -> Iterator[_Table]:
    """Yield a table with the columns that its header names, or all, if each line has as many."""
    if 1 < len(rows[0]) <= _MAX_COLUMNS and {len(row) for row in rows} == {len(rows[0])}:
        titled = [column for column, cell in enumerate(rows[0]) if _HEADER.fullmatch(_unquoted(cell))]
        yield rows, permutations(titled if len(titled) > 1 else range(len(rows[0])), 2)


def _json_tables(content: Any) -> Iterator[_Table]:
    """Yield the cells of an object of names and numbers, or of a list of objects with the keys of the first."""
    if isinstance(content, dict) and all(isinstance(value, str | int) for value in content.values()):
        yield [[key, str(value)] for key, value in content.items()], [(0, 1), (1, 0)]
    elif isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        yield from _columns([list(content[0]), *([str(entry.get(key, "")) for key in content[0]] for entry in content)])


def _without_header(file: Path, lines: list[str]) -> list[str]:
    """Return the names of a list without numbers; UserError for a header of several columns."""
    if len(lines) > 1 and all(map(_HEADER.fullmatch, titles := re.split("[,;\t]", lines[0]))):
        if len(titles) > 1:
            raise UserError(f"{file}:1: the header {lines[0]!r} has no column of numbers, as 'id,name' has")
        if re.search(_TITLE, lines[0], re.IGNORECASE):
            _log.warning("%s:1: %r is a header, the first class is %r", file, *lines[:2])
            lines = lines[1:]
    return [_unquoted(line) for line in lines]


def _unquoted(text: str) -> str:
    """Remove the quotes around a text: those of CSV, and those of names that had quotes before."""
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        text = text[1:-1].replace('""', '"').strip()
    return text
