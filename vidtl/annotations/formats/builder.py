"""Output of the annotation formats: the builder of `Records`."""

import logging
import math
from array import array
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from vidtl.annotations.consistency import merge_repeats, warn_of_labels
from vidtl.annotations.formats.source import AnnotationSource, Row
from vidtl.annotations.layout import Fields
from vidtl.annotations.records import ClassNames, GrowingStrings, Records, StringColumn, annotated_at
from vidtl.errors import UserError

_log = logging.getLogger(__name__)


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
        self._first_uses: list[str] = []
        self._groups = GrowingStrings()
        self._numbers: dict[str, int] = {}
        self.label_names: list[str] = []
        """Names of labels, by first use; several may become one class."""

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
        """Add a label to the last record, of the whole video unless times are given; an empty one is missing."""
        name = self.source.description.aliases.get(name, name)
        if not name:
            self.source.lack_label(f"{row.where}: the label is empty; every row needs the name of a class")
            return
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.label_names)
            self.label_names.append(name)
            self._first_uses.append(row.where)
        self._label_numbers.append(number)
        self._label_starts.append(start_s)
        self._label_ends.append(end_s)
        self._label_offsets[-1] += 1

    def rename_labels(self, names: Mapping[str, str]) -> None:
        """Replace names of labels by others, which may be other spellings of classes, or empty for no label."""
        renamed = [names.get(name, name) for name in self.label_names]
        self.label_names = [self.source.description.aliases.get(name, name) for name in renamed]

    def complete(self, expected: Callable[[str, str], str], ambiguous: Iterable[int] = ()) -> None:
        """Set the path of records without a file, and of `ambiguous` ones, to `expected(id, first label)`.

        Call it last, when the layout of the other videos is known.
        """
        absent = {*self._absent, *ambiguous}
        if not absent:
            return
        ids, paths, names = self._ids.column(), GrowingStrings(), self.label_names
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

    def ids(self) -> StringColumn:
        """Return the ids of all records; no record can be added afterwards."""
        return self._ids.column()

    @property
    def is_unlabeled(self) -> bool:
        """True if there are rows, and none has a label."""
        return bool(self._lines) and not any(self.label_names)

    def check(self, split: str, labeled: bool = True) -> None:
        """Raise a UserError for a split without rows, or where labels are missing unless they may."""
        files = ", ".join(map(str, self.source.annotations))
        if labeled and self.source.unlabeled:
            raise UserError(self.source.unlabeled[0])
        if not self._lines:
            raise UserError(f"{files}: no row belongs to split {split!r}; one is needed")
        if labeled and self.is_unlabeled:
            raise UserError(f"{files} has no labels for split {split!r}; only predict.py reads such lists")

    def build(self, classes: ClassNames, labeled: bool = True) -> Records:
        """Build the table; rows that say the same of one id are one record.

        Args:
            classes: names in the order of the model's outputs.
            labeled: False: labels of other classes are left out.

        Raises:
            UserError: contradictory rows with one id or an unknown class.
        """
        ids, source = self._ids.column(), self.source
        numbers = [
            self._class_number(classes, number, name) if labeled or name in classes else -1
            for number, name in enumerate(self.label_names)
        ]
        label_classes = np.array(numbers, np.int32)[np.array(self._label_numbers)]
        is_label = label_classes >= 0
        annotation = source.annotations[0]
        if respelled := source.finder.respelled:
            text = "%s: %d paths have other endings, accents or separators than the files, as %r for %r"
            _log.warning(text, annotation, len(respelled), *next(iter(respelled.items())))
        places = dict(zip(reversed(self.label_names), reversed(self._first_uses), strict=True))
        warn_of_labels(annotation, classes.names, () if source.classes else self.label_names, places)
        records = Records(
            root=source.root,
            classes=classes,
            multi_label=source.description.multi_label,
            annotation=source.annotations[0],
            ids=ids,
            paths=self.paths(),
            lines=np.array(self._lines),
            label_offsets=np.append(0, np.cumsum(is_label))[np.array(self._label_offsets)],
            label_classes=label_classes[is_label],
            label_starts_s=np.array(self._label_starts)[is_label],
            label_ends_s=np.array(self._label_ends)[is_label],
            segment_starts_s=np.array(self._segment_starts),
            segment_ends_s=np.array(self._segment_ends),
            further_annotations=source.annotations[1:],
            file_numbers=np.array(self._file_numbers) if len(source.annotations) > 1 else None,
            frame_rate=source.description.frame_rate,
            are_entries=self._are_entries,
        )
        return merge_repeats(records)

    def where(self, index: int) -> str:
        """Return the place of a record, as `Row.where`."""
        return annotated_at(self.source.annotations[self._file_numbers[index]], self._lines[index], self._are_entries)

    def _class_number(self, classes: ClassNames, number: int, name: str) -> int:
        try:
            return classes.index(name)
        except UserError as error:
            raise UserError(f"{self._first_uses[number]}: {error}") from None
