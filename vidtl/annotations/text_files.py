"""Read CSV files, text lists and lists of class names, with line numbers."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vidtl.annotations.records import ClassNames
from vidtl.errors import UserError, did_you_mean

_NUMBERED = re.compile(r"(?P<prefix>c?)(?P<number>\d+)[ \t]+(?P<name>.*)")


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and stripped text of each line that is not blank."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for line, text in enumerate(stream, start=1):
                if stripped := text.strip():
                    yield line, stripped
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {error.start})") from None


def lacks_column(file: Path, name: str) -> bool:
    """Return True if a CSV file has a header without this column; False for other files, which reading reports."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = [each.strip() for each in next(csv.reader(stream), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return bool(header) and name not in header


def read_columns(file: Path, wanted: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and columns of each row that is not blank; names and values are stripped."""
    keys = tuple(wanted)
    line = 1
    try:
        # utf-8-sig drops the byte order mark that spreadsheets write
        with file.open(encoding="utf-8-sig", newline="") as stream:
            strip = str.strip
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            places = [_column(file, header, wanted[key]) for key in keys]
            line = reader.line_num + 1
            for fields in reader:
                if fields:
                    if len(fields) != len(header):
                        raise UserError(
                            f"{file}:{line}: {len(fields)} fields, the header has {len(header)}; "
                            "a field that contains a comma needs quotes"
                        )
                    yield line, dict(zip(keys, [strip(fields[place]) for place in places], strict=True))
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
    """Class names, and the number of the first one in annotations."""

    names: ClassNames
    first_number: int


def read_class_list(file: Path, numbered: bool = False) -> ClassList:
    """Read class names in the order of their numbers.

    Forms: one name per line; lines `c000 name` of Charades, numbered from 0; lines `1 name` of UCF101's `classInd.txt`,
    numbered from 0 or 1; a JSON object of names and numbers, as Something-Something's `labels.json`, or a JSON list of
    names. Lines are numbered if the first two are; `numbered` requires the form of Charades.

    Raises:
        UserError: not UTF-8, a number out of order, an empty or repeated name.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a text file in UTF-8 ({error})") from None
    names, first = _from_json(file, text) if file.suffix == ".json" else _from_lines(file, text, numbered)
    try:
        return ClassList(ClassNames(tuple(names)), first)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _from_lines(file: Path, text: str, numbered: bool) -> tuple[list[str], int]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    head = [_NUMBERED.fullmatch(line) for line in lines[:2]]
    prefix, first = "c", 0
    if not numbered:
        if len(head) < 2 or not head[0] or not head[1] or head[0]["prefix"] != head[1]["prefix"]:
            return lines, 0
        prefix, first = head[0]["prefix"], int(head[0]["number"])
        if first > 1 or int(head[1]["number"]) != first + 1:
            return lines, 0
    names = []
    for line, entry in enumerate(lines, start=1):
        number = first + line - 1
        expected = f"c{number:03d}" if prefix else str(number)
        parsed = _NUMBERED.fullmatch(entry)
        if parsed is None or entry.split()[0] != expected:
            raise UserError(
                f"{file}:{line}: {entry!r} does not begin with '{expected} '; classes are numbered in order"
            )
        names.append(parsed["name"])
    return names, first


def _from_json(file: Path, text: str) -> tuple[list[str], int]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a JSON file ({error})") from None
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content, 0
    if not isinstance(content, dict) or not all(str(number).isdecimal() for number in content.values()):
        raise UserError(f"{file}: an object of class names and numbers, or a list of names, is needed")
    by_number = {int(number): name for name, number in content.items()}
    first = min(by_number, default=0)
    if first > 1 or sorted(by_number) != list(range(first, first + len(content))):
        raise UserError(f"{file}: its {len(content)} numbers are not 0 to {len(content) - 1}, each once")
    return [by_number[number] for number in sorted(by_number)], first
