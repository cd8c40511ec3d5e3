"""Input and output of the annotation formats: rows with their line numbers, and the builder of `Records`."""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidtl.annotations.entries import is_entry_file, read_table
from vidtl.annotations.layout import Fields, VideoFinder, check_relative, column_of
from vidtl.annotations.records import ClassNames, GrowingStrings, Records, StringColumn, annotated_at
from vidtl.annotations.text_files import ClassList, text_lines
from vidtl.errors import UserError, did_you_mean

Columns = Mapping[str, str | None]
"""Name in the file of each column of a format; None for an optional one that the data set does not name."""


LABEL_COLUMNS = ("label", "actions", "length")
"""Columns that lists without labels lack."""


class Row(NamedTuple):
    """One row of an annotation file."""

    file: Path
    file_number: int
    line: int
    values: Mapping[str, str] = {}
    """Requested columns by the format's name for them."""
    is_entry: bool = False
    """`line` is the number of an entry of a JSON file."""

    @property
    def where(self) -> str:
        """`file:line` or `file, entry N`, the start of every error message; the folder alone without such files."""
        return annotated_at(self.file, self.line, self.is_entry)


@dataclass(frozen=True, kw_only=True)
class AnnotationSource:
    """One split of a data set: the input of the readers in `vidtl.annotations.formats`."""

    root: Path
    annotations: tuple[Path, ...]
    multi_label: bool
    finder: VideoFinder
    split_value: str
    """Value of this split in the column `split`, where the data set names such a column."""
    split_values: frozenset[str]
    """Values of all splits; any other one is an error."""
    classes: ClassNames | None
    """None if the data set has no list of classes."""
    columns: Columns = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    first_class: int = 0
    """Number of the first class in annotations."""
    fields: tuple[str, ...] = ()
    """Fields of a line of a list without a header."""
    frame_rate: float | None = None
    """Frames per second of folders of images."""
    entries: tuple[str, ...] = ()
    """Keys that lead to the entries of a JSON file."""
    separator: str = ";"
    """Separates several labels of a row."""
    label_parts: tuple[ClassList, ...] = ()
    """Classes of each part of a label that combines several columns."""
    labeled: bool = True
    """False: labels may be missing."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the split in the order of the files; UserError for an invalid header or row."""
        columns = {key: name for key, name in self.columns.items() if name is not None}
        for name in sorted(map(column_of, self.finder.fields)):
            columns.setdefault(name, name)
        optional = () if self.labeled else LABEL_COLUMNS
        for number, file in enumerate(self.annotations):
            for line, values in read_table(file, columns, optional, self.entries, self.separator):
                row = Row(file, number, line, values, is_entry_file(file))
                if "split" not in values or self._in_split(row):
                    yield row

    def lines(self) -> Iterator[tuple[Row, str]]:
        """Yield the lines that are not blank, with their text, in the order of the files."""
        for number, file in enumerate(self.annotations):
            for line, text in text_lines(file):
                yield Row(file, number, line), text

    def locate(self, path: str, where: str) -> str:
        """Convert the path of a video in an annotation to one relative to the root.

        Absolute paths must lie in the root; others are searched in the folders of the split.
        """
        path = path.removeprefix("./")
        if path.startswith("/"):
            for root in (self.root.absolute(), self.root.resolve()):
                if path.startswith(f"{root}/"):
                    return check_relative(path.removeprefix(f"{root}/"), where)
        return self.finder.place(check_relative(path, where))

    def class_name(self, label: str, where: str) -> str:
        """Return the class name of a label, which is a number in the list of classes or a name."""
        if self.label_parts:
            return self._combined(label, where)
        if not label.isdecimal() or (self.classes is not None and label in self.classes):
            return label
        if self.classes is None:
            raise UserError(f"{where}: the label is the number {label}; `classes` is needed in dataset.yaml")
        number, names = int(label) - self.first_class, self.classes.names
        if not 0 <= number < len(names):
            last = self.first_class + len(names) - 1
            raise UserError(f"{where}: the label is {label}; classes are numbered {self.first_class} to {last}")
        return names[number]

    def _combined(self, label: str, where: str) -> str:
        """Join the class names of the parts of a label."""
        numbers = label.split(" + ")
        if len(numbers) != len(self.label_parts):
            raise UserError(f"{where}: the label is {label!r}; {len(self.label_parts)} numbers are needed")
        parts = (replace(self, classes=n, first_class=first, label_parts=()) for n, first in self.label_parts)
        return " ".join(part.class_name(number, where) for part, number in zip(parts, numbers, strict=True))

    def _in_split(self, row: Row) -> bool:
        value = row.values["split"]
        if value not in self.split_values:
            hint = did_you_mean(value, sorted(self.split_values))
            raise UserError(f"{row.where}: {self.columns['split']} is {value!r}, no split of dataset.yaml; {hint}")
        return value == self.split_value


class RecordsBuilder:
    """Columns that grow row by row; label names become classes at the end."""

    def __init__(self, source: AnnotationSource) -> None:
        self.source = source
        self._ids = GrowingStrings()
        self._paths = GrowingStrings()
        self._absent = array("q")
        self._lines = array("i")
        self._are_entries = False
        self._file_numbers = array("h")
        self._segment_starts = array("d")
        self._segment_ends = array("d")
        self._label_offsets = array("q", [0])
        self._label_numbers = array("i")
        self._label_starts = array("f")
        self._label_ends = array("f")
        self._first_uses: dict[str, str] = {}
        self._groups = GrowingStrings()
        self.label_numbers: dict[str, int] = {}
        """Number of each label name, by first use."""

    def add(self, row: Row, video_id: str, path: str, segment: tuple[float, float] = (0.0, math.inf)) -> None:
        """Begin a record; `label` then adds to it.

        Args:
            row: its place in the annotation.
            video_id: its key, unique within the split.
            path: relative to the root; empty if no file was found, see `complete`.
            segment: the part of the file that the record covers, in seconds.

        Raises:
            UserError: the id or the path is not UTF-8 (names in old archives).
        """
        if not path:
            self._absent.append(len(self._lines))
        try:
            self._ids.append(video_id)
            self._paths.append(path)
        except UnicodeEncodeError:
            raise UserError(f"{row.where}: {path or video_id!r} is not UTF-8; rename it") from None
        self._groups.append(row.values.get("group", ""))
        self._lines.append(row.line)
        self._are_entries = row.is_entry
        self._file_numbers.append(row.file_number)
        self._segment_starts.append(segment[0])
        self._segment_ends.append(segment[1])
        self._label_offsets.append(len(self._label_numbers))

    def add_found(self, row: Row, video_id: str, fields: Fields) -> None:
        """Begin a record whose file is found by the name patterns of the data set."""
        self.add(row, video_id, self.source.finder.find(fields) or "")

    def label(self, row: Row, name: str, start_s: float = -math.inf, end_s: float = math.inf) -> None:
        """Add a label to the last record, of the whole video unless times are given."""
        name = self.source.aliases.get(name, name)
        number = self.label_numbers.get(name)
        if number is None:
            if not name:
                if not self.source.labeled:
                    return
                raise UserError(f"{row.where}: the label is empty; every row needs the name of a class")
            number = self.label_numbers[name] = len(self.label_numbers)
            self._first_uses[name] = row.where
        self._label_numbers.append(number)
        self._label_starts.append(start_s)
        self._label_ends.append(end_s)
        self._label_offsets[-1] += 1

    def complete(self, expected: Callable[[str, str], str], ambiguous: Iterable[int] = ()) -> None:
        """Set the path of records without a file, and of `ambiguous` ones, to `expected(id, first label)`.

        Call it last, when the layout of the other videos is known.
        """
        absent = {*self._absent, *ambiguous}
        if not absent:
            return
        ids, paths, names = self._ids.column(), GrowingStrings(), list(self.label_numbers)
        for index, path in enumerate(self.paths()):
            if index in absent:
                labels = self._label_numbers[self._label_offsets[index] : self._label_offsets[index + 1]]
                path = expected(ids[index], names[labels[0]] if labels else "")
            paths.append(path)
        self._paths = paths

    def complete_by_id(self) -> None:
        """Set the path of records without a file by a pattern whose only field is `id`."""
        pattern = self.source.finder.expected_pattern()
        self.complete(lambda video_id, _: pattern.format(id=video_id))

    def groups(self, records: Records) -> list[str]:
        """Return the value of the column or field `group` of each record of `build`; empty without one."""
        by_id = dict(zip(self._ids.column(), self._groups.column(), strict=True))
        return [by_id[video_id] for video_id in records.ids]

    def paths(self) -> StringColumn:
        """Return the paths of all records, empty for those without a file; no record can be added afterwards."""
        return self._paths.column()

    def build(self, classes: ClassNames) -> Records:
        """Build the table.

        Raises:
            UserError: an empty split, a repeated id or an unknown class.
        """
        ids, source = self._ids.column(), self.source
        self._check_ids(ids)
        numbers = np.array([self._class_number(classes, name) for name in self.label_numbers], np.int32)
        return Records(
            root=source.root,
            classes=classes,
            multi_label=source.multi_label,
            annotation=source.annotations[0],
            ids=ids,
            paths=self.paths(),
            lines=np.array(self._lines),
            label_offsets=np.array(self._label_offsets),
            label_classes=numbers[np.array(self._label_numbers)],
            label_starts_s=np.array(self._label_starts),
            label_ends_s=np.array(self._label_ends),
            segment_starts_s=np.array(self._segment_starts),
            segment_ends_s=np.array(self._segment_ends),
            further_annotations=source.annotations[1:],
            file_numbers=np.array(self._file_numbers) if len(source.annotations) > 1 else None,
            frame_rate=source.frame_rate,
            are_entries=self._are_entries,
        )

    def where(self, index: int) -> str:
        """Return the place of a record, as `Row.where`."""
        return annotated_at(self.source.annotations[self._file_numbers[index]], self._lines[index], self._are_entries)

    def _class_number(self, classes: ClassNames, name: str) -> int:
        try:
            return classes.index(name)
        except UserError as error:
            raise UserError(f"{self._first_uses[name]}: {error}") from None

    def _check_ids(self, ids: StringColumn) -> None:
        if not len(ids):
            files = ", ".join(str(file) for file in self.source.annotations)
            raise UserError(f"{files}: no row belongs to this split; at least one is needed")
        repeated = ids.repeated().tolist()
        if repeated:
            first, video_id = repeated[0], ids[repeated[0]]
            second = next(index for index in repeated[1:] if ids[index] == video_id)
            raise UserError(f"{self.where(second)}: {video_id!r} is already at {self.where(first)}; once is allowed")


def seconds(text: str, row: Row, name: str | None) -> float:
    """Parse a finite number of seconds, 0 or more; UserError that names the column `name`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{row.where}: {name} is {text!r}; a number of seconds, 0 or more, is needed")
    return value
