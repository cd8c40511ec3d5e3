"""Read CSV files and text lists row by row, with line numbers."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from vidtl.errors import UserError, did_you_mean


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
        raise UserError(f"{file}:1: the column {name!r} is there {header.count(name)} times; once is allowed")
    hint = did_you_mean(name, header) if header else "the file is empty"
    raise UserError(f"{file}:1: no column {name!r} among {', '.join(map(repr, header[:12]))}; {hint}")
