"""Read files of class names in their published forms."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vidtl.annotations.records import ClassNames
from vidtl.errors import UserError

_NUMBERED = re.compile(r"(?P<prefix>c?)(?P<number>\d+)[ \t]+(?P<name>.*)")


class ClassList(NamedTuple):
    """Class names, and the number of the first one in annotations."""

    names: ClassNames
    first_number: int


def read_class_list(file: Path, numbered: bool = False) -> ClassList:
    """Read class names in the order of their numbers.

    Forms: one name a line; lines `c000 name` as Charades writes them, numbered from 0; lines `1 name` as UCF101's
    `classInd.txt`, numbered from 0 or 1; a JSON object of names and numbers, as Something-Something's `labels.json`, or
    a JSON list of names. Lines are numbered if the first two are.

    Args:
        file: the list.
        numbered: require the form of Charades.

    Raises:
        UserError: no text in UTF-8, a number out of order, an empty or repeated name.
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
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if numbered:
        return _without_numbers(file, lines, "c", 0), 0
    head = [_NUMBERED.fullmatch(line) for line in lines[:2]]
    if len(head) == 2 and head[0] and head[1] and head[0]["prefix"] == head[1]["prefix"]:
        first = int(head[0]["number"])
        if first <= 1 and int(head[1]["number"]) == first + 1:
            return _without_numbers(file, lines, head[0]["prefix"], first), first
    return lines, 0


def _without_numbers(file: Path, lines: Sequence[str], prefix: str, first: int) -> list[str]:
    names = []
    for line, (number, text) in enumerate(enumerate(lines, first), start=1):
        expected = f"c{number:03d}" if prefix else str(number)
        parsed = _NUMBERED.fullmatch(text)
        if parsed is None or text.split()[0] != expected:
            began = "c000" if prefix else first
            raise UserError(
                f"{file}:{line}: {text!r} does not begin with '{expected} '; classes are numbered from {began}"
            )
        names.append(parsed["name"])
    return names


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
