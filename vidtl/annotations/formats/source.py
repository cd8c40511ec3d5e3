"""Input of the annotation formats: rows with their line numbers, paths, labels and times."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vidtl.annotations.entries import read_table
from vidtl.annotations.keys import DatasetDescription, SplitDescription
from vidtl.annotations.layout import VideoFinder, check_relative, is_relative
from vidtl.annotations.records import ClassNames, annotated_at
from vidtl.annotations.text_files import ClassList, text_lines
from vidtl.errors import UserError, did_you_mean

_LATEST_S = 1e12  # whole numbers of a fraction of a second stay short
_CLOCK = re.compile(r"(?:(\d{1,9}):(?=[0-5]?\d:))?(\d{1,9}):([0-5]?\d(?:\.\d*)?)")

Columns = Mapping[str, str | None]
"""Name in the file of each column of a format; None for an optional one that the data set does not name."""


class Row(NamedTuple):
    """One row of an annotation file."""

    file: Path
    file_number: int
    line: int
    values: Mapping[str, str] = {}
    """Requested columns by the format's name for them."""

    @property
    def where(self) -> str:
        """`file:line` or `file, entry N`, the start of every error message; the folder alone without such files."""
        return annotated_at(self.file, self.line)


@dataclass(frozen=True, kw_only=True)
class AnnotationSource:
    """One split of a data set: the input of the readers in `vidtl.annotations.formats`."""

    root: Path
    annotations: tuple[Path, ...]
    dataset: DatasetDescription
    split: SplitDescription
    columns: Columns
    finder: VideoFinder
    class_lists: tuple[ClassList, ...]
    """One list for each part of a label; none if the data set has no list of classes."""
    unlabeled: list[str] = field(default_factory=list)
    """Messages of missing labels, which `RecordsBuilder.check` raises if labels are needed."""

    @property
    def classes(self) -> ClassNames | None:
        """The one list of classes, if there is one."""
        return self.class_lists[0].names if len(self.class_lists) == 1 else None

    @cached_property
    def _split_values(self) -> frozenset[str]:
        return frozenset(each.value for each in self.dataset.splits.values())

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the split in the order of the files; UserError for an invalid header or row."""
        columns = {key: name for key, name in self.columns.items() if name is not None}
        for name in sorted(self.finder.fields):
            columns.setdefault(name.partition("*")[0], name.partition("*")[0])
        for number, file in enumerate(self.annotations):
            entries, separator = self.dataset.entries, self.dataset.separator
            for line, values in read_table(file, columns, entries, separator, self.unlabeled):
                row = Row(file, number, line, values)
                if "split" not in values or self._in_split(row):
                    yield row

    def lines(self) -> Iterator[tuple[Row, str]]:
        """Yield the lines that are not blank, with their text, in the order of the files."""
        for number, file in enumerate(self.annotations):
            for line, text in text_lines(file):
                yield Row(file, number, line), text

    def locate(self, path: str, row: Row) -> str:
        """Convert the path of a video in an annotation to one relative to the root.

        Absolute paths must lie in the root, or lose their `path_prefix`; others are searched in the split's folders.
        """
        written, path = path, path.replace("\\", "/")
        if self.dataset.path_prefix:
            path = path.removeprefix(self.dataset.path_prefix.replace("\\", "/").rstrip("/") + "/")
        if path.startswith("/") or path[1:3] == ":/":
            roots = [f"{root}/" for root in (self.root.absolute(), self.root.resolve()) if path.startswith(f"{root}/")]
            if not roots:
                hint = "`path_prefix` in dataset.yaml removes the beginning of paths"
                raise UserError(f"{row.where}: {written!r} is not in data.root {str(self.root)!r}; {hint}")
            return check_relative(path.removeprefix(roots[0]), row.where)
        path = path.removeprefix("./")
        if not is_relative(path):  # the place, which costs as much as the check, is composed for an error alone
            check_relative(path, f"{row.where}: {self.columns.get('path') or 'path'}")
        return self.finder.place(path, written if "\\" in written else "")

    def time(self, text: str, row: Row, name: str | None) -> float:
        """Parse a time in seconds or `hh:mm:ss`, or with `time_unit: frames` the number of a frame from 0."""
        if self.dataset.time_unit == "seconds":
            return seconds(text, row, name)
        if not is_number(text):
            raise UserError(f"{row.where}: {name} is {text!r}; the number of a frame, 0 or more, is needed")
        return self.frame_time(int(text))

    def frame_time(self, number: int) -> float:
        """Return the time in seconds half a frame before a frame, so that rounding cannot exclude it."""
        assert self.dataset.frame_rate is not None  # the description requires it
        return max(0.0, (number - 0.5) / self.dataset.frame_rate)

    def lack_label(self, message: str) -> None:
        """Note that a row has no label; the first message is kept."""
        if not self.unlabeled:
            self.unlabeled.append(message)

    def class_name(self, label: str, row: Row) -> str:
        """Return the class name of a label: a name, a number in the list of classes, or `a + b` of several lists."""
        if not label or not self.class_lists:
            return label
        parts = label.split(" + ") if len(self.class_lists) > 1 else [label]
        if len(parts) != len(self.class_lists):
            raise UserError(f"{row.where}: the label is {label!r}; {len(self.class_lists)} numbers are needed")
        return " ".join(_name_of_number(*each, row) for each in zip(parts, self.class_lists, strict=True))

    def _in_split(self, row: Row) -> bool:
        value = row.values["split"]
        if value not in self._split_values:
            hint = did_you_mean(value, sorted(self._split_values))
            raise UserError(f"{row.where}: {self.columns['split']} is {value!r}, no split of dataset.yaml; {hint}")
        return value == self.split.value


def _name_of_number(label: str, classes: ClassList, row: Row) -> str:
    if not is_number(label) or label in classes.names:
        return label
    numbers = classes.by_number
    if int(label) not in numbers:
        raise UserError(f"{row.where}: the label is {label}; classes are numbered {min(numbers)} to {max(numbers)}")
    return numbers[int(label)]


def is_number(text: str) -> bool:
    """Return True for a whole number of up to nine digits, which `int` converts in no time."""
    return text.isdecimal() and len(text) < 10


def seconds(text: str, row: Row, name: str | None) -> float:
    """Parse a number of seconds from 0 to 1e12, or `hh:mm:ss.xx`; UserError that names the column `name`."""
    try:
        clock = _CLOCK.fullmatch(text)
        value = float(text) if clock is None else 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
    except ValueError:
        value = math.nan
    if not 0 <= value < _LATEST_S:
        raise UserError(f"{row.where}: {name} is {text!r}; seconds, 0 or more, or hh:mm:ss.xx are needed")
    return value
