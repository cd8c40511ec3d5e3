"""Read CSV files, text lists and lists of class names, with line numbers."""

import csv
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vidtl.annotations.records import ClassNames, annotated_at
from vidtl.config.documents import JSON_BYTES, parse_json, read_text
from vidtl.errors import UserError, did_you_mean

_FORMS = (
    re.compile(r"(?P<number>[^\s,;:]+)[\s,;:]+(?P<name>[^\s,;:].*)"),
    re.compile(r"(?P<name>.*[^\s,;:])[\s,;:]+(?P<number>[^\s,;:]+)"),
)
_NUMBER = re.compile(r"([A-Za-z]?)(\d{1,9})[.):]?")
_NAME = r"class(?:es)?|labels?|names?|categor(?:y|ies)|actions?"
_TITLE = re.compile(rf"(?i)(?:(?:{_NAME}|ids?|idx|index|no|num(?:ber)?|key|tag|verb|noun|text)[\s,;:_-]*)+")

MOST_CHARACTERS = 1 << 20  # of a line, whose parts take many times its memory

_log = logging.getLogger(__name__)

_Pairs = Sequence[tuple[str, str]]
"""Text of the number and name of each line; empty for a blank line and the header."""


def _lines(file: Path, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a file; UserError for one that is too long, and for another encoding."""
    try:
        # utf-8-sig drops the byte order mark that spreadsheets write
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            for line, text in enumerate(iter(partial(stream.readline, MOST_CHARACTERS), ""), start=1):
                if len(text) == MOST_CHARACTERS:
                    raise UserError(f"{file}:{line}: the line is too long; allowed: below {MOST_CHARACTERS} characters")
                yield text
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {error.start}); save it as UTF-8") from None


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and stripped text of each line that is not blank."""
    for line, text in enumerate(_lines(file), start=1):
        if stripped := text.strip():
            yield line, stripped


def read_columns(
    file: Path,
    wanted: Mapping[str, str],
    optional: Collection[str] = (),
    lacking: list[str] | None = None,
    delimiter: str = ",",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and stripped columns of each row; `lacking` receives messages about absent `optional` ones."""
    line, places = 1, list[tuple[str, int]]()
    reader = csv.reader(_lines(file, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for key, name in wanted.items():
            try:
                places.append((key, _column(file, header, name, wanted.values(), delimiter)))
            except UserError as error:
                if lacking is None or key not in optional or not header:
                    raise
                lacking.append(str(error))
        line = reader.line_num + 1
        for fields in reader:
            if fields:
                if len(fields) != len(header):
                    problem = f"{len(fields)} fields, the header has {len(header)}"
                    raise UserError(f"{file}:{line}: {problem}; a field that contains {delimiter!r} needs quotes")
                yield line, {key: fields[place].strip() for key, place in places}
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}:{line}: not a row of a CSV file with the separator {delimiter!r} ({error})") from None


def _column(file: Path, header: list[str], name: str, wanted: Collection[str], delimiter: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise UserError(f"{file}:1: {header.count(name)} columns {name!r}; one is allowed")
    hint = did_you_mean(name, header) if header else "the file is empty"
    if header and not set(wanted) & set(header):
        hint = f"the first line must be a header, such as {delimiter.join(wanted)}"
        for other in {*",;\t|"} - {delimiter}:
            if name in map(_unquoted, delimiter.join(header).split(other)):
                hint = f"the separator is {other!r}; allowed: {delimiter!r}"
    raise UserError(f"{file}:1: no column {name!r} among {', '.join(map(repr, header[:12]))}; {hint}")


class ClassList(NamedTuple):
    """Class names in the order of their numbers, and the name of each number in annotations."""

    names: ClassNames
    by_number: dict[int, str]


class _Reading(NamedTuple):
    """A list in one form: name and line (from 0) of each number; a problem, if there is one, and two lines with it."""

    by_number: dict[int, str]
    lines: dict[int, int]
    problem: str
    example: tuple[int, int]


def read_class_list(file: Path) -> ClassList:
    """Read class names in the order of their numbers, or of the lines if these have none.

    Forms: a name per line; a number and a name in either order, with a comma, tab, semicolon, colon or space between;
    columns with a header; JSON objects of names and numbers, and lists of names. Numbers begin with 0 or 1, all with
    the same letter before them or none. One form must hold for the whole file; missing numbers are logged.

    UserError: too large, not UTF-8, no form or several, an empty or repeated name.
    """
    is_json = file.suffix == ".json"
    text = read_text(file, JSON_BYTES)
    content = parse_json(text, str(file), object_pairs_hook=tuple) if is_json else text.rstrip().splitlines()
    by_number = None
    if isinstance(content, tuple) and all(isinstance(value, str | int) for _, value in content):
        pairs = [(name, str(value)) for name, value in content]
        by_number = _numbered(file, [": ".join(pair) for pair in pairs], (pairs, [pair[::-1] for pair in pairs]))
    elif isinstance(content, list) and all(isinstance(name, str) for name in content):
        lines = [name.strip() for name in content]
        if len(lines) > 1 and not is_json:
            by_number = _numbered(file, lines, _forms(file, lines))
            lines = lines if by_number else _without_header(file, lines)
        by_number = by_number or dict(enumerate(map(_unquoted, lines)))
    if by_number is None:
        raise UserError(f"{file}: an object of class names and numbers, or a list of names, is needed")
    try:
        return ClassList(ClassNames(tuple(by_number.values())), by_number)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _forms(file: Path, lines: Sequence[str]) -> Iterator[_Pairs]:
    """Yield number and name of each line in each form, or from the columns that a header names."""
    delimiter, titles = _header(lines[0])
    if titles:
        rows = dict(read_columns(file, {title: title for title in titles}, delimiter=delimiter))
        counts = {title: sum(bool(_NUMBER.fullmatch(row[title])) for row in rows.values()) for title in titles}
        number, name = max(titles, key=counts.__getitem__), min(titles, key=counts.__getitem__)
        yield [(rows[i][number], rows[i][name]) if i in rows else ("", "") for i in range(1, len(lines) + 1)]
        return
    lines = ["" if _TITLE.fullmatch(lines[0]) else lines[0], *lines[1:]]
    for form in _FORMS:
        matches = [(form.fullmatch(line), line) for line in lines]
        yield [(match["number"], match["name"]) if match else ("", line) for match, line in matches]


def _header(line: str) -> tuple[str, list[str]]:
    """Return the delimiter and the titles of numbers and names of a line with several of them."""
    for delimiter in ",\t;":
        cells = [_unquoted(cell) for cell in line.split(delimiter)]
        titles = [cell for i, cell in enumerate(cells) if _TITLE.fullmatch(cell or "id" * (i == 0))]
        if len(titles) > 1:
            return delimiter, titles
    return "", []


def _without_header(file: Path, lines: list[str]) -> list[str]:
    """Return the names of a list without numbers; UserError for a header of several columns."""
    if _header(lines[0])[1]:
        raise UserError(f"{file}:1: the header {lines[0]!r} has no column of numbers beside names, as 'id,name' has")
    if _TITLE.fullmatch(lines[0]) and re.search(_NAME, lines[0], re.IGNORECASE):
        _log.warning("%s:1: %r is a header, the first class is %r", file, *lines[:2])
        return lines[1:]
    return lines


def _read(pairs: _Pairs) -> _Reading | None:
    """Read numbers; None if most lines have none, or most names are the same ('level 1', 'level 2') or numbers."""
    matches = [_NUMBER.fullmatch(_unquoted(number)) for number, _ in pairs]
    letter = next((match[1] for match in matches if match), "")
    numbers = {i: int(match[2]) for i, match in enumerate(matches) if match and match[1] == letter}
    first = {number: i for i, number in reversed(numbers.items())}
    by_number = {number: _unquoted(pairs[first[number]][1]) for number in sorted(first)}
    names = set(by_number.values())
    filled = [i for i, pair in enumerate(pairs) if any(pair)]
    if 2 * len(numbers) <= len(filled) or 2 * len(names) <= len(first) or all(map(str.isdecimal, names)):
        return None
    problem, example = "", (first[min(first)], first[max(first)])
    wrong = next((i for i in filled if i not in numbers or first[numbers[i]] != i), None)
    if wrong is not None:
        problem = "has no number of its own, as most lines have, such as"
        example = wrong, first.get(numbers.get(wrong, -1), example[0])
    elif min(first) > 1:
        problem = "has the lowest number, which is neither 0 nor 1; the highest is that of"
    return _Reading(by_number, first, problem, example)


def _numbered(file: Path, lines: Sequence[str], forms: Iterable[_Pairs]) -> dict[int, str] | None:
    """Return names by number in the form that holds, best without gaps; None without numbers, UserError if unsure."""
    readings = [reading for form in forms if (reading := _read(form))]
    if not readings:
        return None
    holding = [reading for reading in readings if not reading.problem]
    best = [each for each in holding if max(each.by_number) - min(each.by_number) < len(each.by_number)] or holding
    by_number, of_numbers, problem, example = best[0] if best else max(readings, key=lambda each: len(each.by_number))
    if others := [each.by_number for each in best if each.lines != of_numbers]:
        either = " or ".join("{} {!r}".format(*next(iter(each.items()))) for each in (by_number, others[0]))
        problem = f"may be {either}; a header decides; likewise"
    if problem:
        text, other = (lines[i][:80] for i in example)
        raise UserError(f"{annotated_at(file, example[0] + 1)}: {text!r} {problem} {other!r}")
    lowest, highest = min(by_number), max(by_number)
    if missing := next((number for number in range(lowest, highest) if number not in by_number), None):
        text = "%s: %d classes, numbered %d to %d with gaps, in the order of their numbers; %d is missing"
        _log.warning(text, file, len(by_number), lowest, highest, missing)
    return by_number


def _unquoted(text: str) -> str:
    """Remove the quotes around a text: those of CSV, and those of names that had quotes before."""
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        text = text[1:-1].replace('""', '"').strip()
    return text
