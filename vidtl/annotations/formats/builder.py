"""Output of the annotation formats: the builder of `Records`."""

import logging
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from vidtl.annotations.formats.source import AnnotationSource, Row
from vidtl.annotations.layout import check_relative
from vidtl.annotations.records import ClassNames, GrowingStrings, Records, annotated_at
from vidtl.errors import UserError, spelling

_MOST_LISTED = 20
_LIST = re.compile(r"""\[['"].*\]|.+[|;].+|.+,[^\s\d].*""")

_log = logging.getLogger(__name__)


class RecordsBuilder:
    """Columns that grow row by row; label names become classes at the end."""

    def __init__(self, source: AnnotationSource) -> None:
        self.source = source
        self.ids = GrowingStrings()
        self.paths = GrowingStrings()
        """Empty for records without a file."""
        self._absent = array("q")
        self._lines = array("i")
        self._file_numbers = array("h")
        self._segment_starts = array("d")
        self._segment_ends = array("d")
        self._label_offsets = array("q", [0])
        self._label_numbers = array("i")
        self._label_starts = array("d")
        self._label_ends = array("d")
        self.lengths_s = array("d")  # of each record, in formats that have them
        self._first_uses: list[str] = []
        self._groups = GrowingStrings()
        self._numbers: dict[str, int] = {}
        self.label_names: list[str] = []
        """Names of labels, by first use; several may become one class."""

    def add(self, row: Row, video_id: str, path: str | None, segment: tuple[float, float] = (0.0, math.inf)) -> None:
        """Begin a record, to which `label` then adds; UserError for names that are not UTF-8 (old archives).

        `video_id` is unique within the split. `path` is relative to the root; None if no file was found, see
        `complete`. `segment` is the part of the file that the record covers, in seconds.
        """
        if not path:
            self._absent.append(len(self._lines))
        try:
            self.ids.append(video_id)
            self.paths.append(path or "")
        except UnicodeEncodeError:
            raise UserError(f"{row.where}: {path or video_id!r} is not UTF-8; rename it") from None
        self._groups.append(row.values.get("group", ""))
        self._lines.append(row.line)
        self._file_numbers.append(row.file_number)
        self._segment_starts.append(segment[0])
        self._segment_ends.append(segment[1])
        self._label_offsets.append(len(self._label_numbers))

    def label(self, row: Row, name: str, start_s: float = -math.inf, end_s: float = math.inf) -> None:
        """Add a label to the last record, of the whole video unless times are given; an empty one is missing."""
        name = self.source.dataset.aliases.get(name, name)
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

    def complete(self, expected: Callable[[str, str], str], ambiguous: Iterable[int] = ()) -> None:
        """Set paths of records without file, and of `ambiguous` ones, to `expected(id, first label)`; call it last."""
        absent = {*self._absent, *ambiguous}
        if not absent:
            return
        ids, paths, names = self.ids.column(), GrowingStrings(), self.label_names
        for index, path in enumerate(self.paths.column()):
            if index in absent:
                labels = self._label_numbers[self._label_offsets[index] : self._label_offsets[index + 1]]
                path = check_relative(expected(ids[index], names[labels[0]] if labels else ""), self.where(index))
            paths.append(path)
        self.paths = paths

    def groups(self, records: Records) -> list[str]:
        """Return the value of the column or field `group` of each record of `build`; empty without one."""
        by_id = dict(zip(self.ids.column(), self._groups.column(), strict=True))
        return [by_id[video_id] for video_id in records.ids]

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
        """Build the table, equal rows as one record; UserError for contradictory ones or, if `labeled`, new classes."""
        ids, source = self.ids.column(), self.source
        numbers = [
            self._class_number(classes, number, name) if labeled or name in classes else -1
            for number, name in enumerate(self.label_names)
        ]
        label_classes = np.array(numbers, np.int32)[np.array(self._label_numbers)]
        is_label = label_classes >= 0
        if respelled := source.finder.respelled:
            text = "%s: %d paths have other endings, accents or separators than the files, as %r for %r"
            _log.warning(text, source.annotations[0], len(respelled), *next(iter(respelled.items())))
        self._warn_of_labels(classes)
        records = Records(
            root=source.root,
            classes=classes,
            multi_label=source.dataset.multi_label,
            annotation=source.annotations[0],
            ids=ids,
            paths=self.paths.column(),
            lines=np.array(self._lines),
            label_offsets=np.append(0, np.cumsum(is_label))[np.array(self._label_offsets)],
            label_classes=label_classes[is_label],
            label_starts_s=np.array(self._label_starts)[is_label],
            label_ends_s=np.array(self._label_ends)[is_label],
            segment_starts_s=np.array(self._segment_starts),
            segment_ends_s=np.array(self._segment_ends),
            further_annotations=source.annotations[1:],
            file_numbers=np.array(self._file_numbers) if len(source.annotations) > 1 else None,
            frame_rate=source.dataset.frame_rate,
            lengths_s=np.array(self.lengths_s) if self.lengths_s else None,
        )
        return _merge_repeats(records)

    def where(self, index: int) -> str:
        """Return the place of a record, as `Row.where`."""
        return annotated_at(self.source.annotations[self._file_numbers[index]], self._lines[index])

    def _class_number(self, classes: ClassNames, number: int, name: str) -> int:
        try:
            return classes.index(name)
        except UserError as error:
            raise UserError(f"{self._first_uses[number]}: {error}") from None

    def _warn_of_labels(self, classes: ClassNames) -> None:
        """Log classes that differ in spelling only, and labels that look like several."""
        spellings: dict[str, list[str]] = {}
        for name in classes.names:
            spellings.setdefault(spelling(name), []).append(name)
        alike = [name for group in spellings.values() if len(group) > 1 for name in group]
        # a comma with a space is part of many names: a list has parts that other labels have, too
        parts = {} if self.source.classes else {label: set(re.split(r"\s*,\s*", label)) for label in self.label_names}
        uses = Counter(part for each in parts.values() for part in each)
        repeats = {label for label, each in parts.items() if len(each) > 1 < max(uses[part] for part in each)}
        lists = [label for label in parts if label in repeats or _LIST.fullmatch(label)]
        for names, kind in ((alike, "differ in case, spaces or accents only"), (lists, "look like several")):
            if names:
                first_uses = zip(self.label_names, self._first_uses, strict=True)
                among = set(names)  # labels that are sentences are as many as videos
                place = next((place for name, place in first_uses if name in among), self.source.annotations[0])
                _log.warning("%s: %d labels %s, as %s", place, len(names), kind, " and ".join(map(repr, names[:2])))


def listed(problems: Sequence[str]) -> str:
    """Join the first 20 problems to one line, with the number of the others."""
    more = f"; and {len(problems) - _MOST_LISTED} more" if len(problems) > _MOST_LISTED else ""
    return "; ".join(problems[:_MOST_LISTED]) + more


def _merge_repeats(records: Records) -> Records:
    """Keep the first of records with equal id, labels and path, and log their number; UserError for unequal ones."""
    columns = records.label_classes, records.label_starts_s, records.label_ends_s

    def content(index: int) -> tuple[str, str, list[tuple[float, float]]]:
        segment = float(records.segment_starts_s[index]), float(records.segment_ends_s[index])
        part = slice(*records.label_offsets[index : index + 2])
        labels = sorted({*zip(*(column[part].tolist() for column in columns), strict=True)})
        names = ", ".join(records.classes.names[number] for number, _, _ in labels)
        return names, records.paths[index], [segment, *((start, end) for _, start, end in labels)]

    first_of: dict[str, int] = {}
    same: list[tuple[int, int]] = []
    contradictions: list[str] = []
    for index in records.ids.repeated().tolist():
        first = first_of.setdefault(records.ids[index], index)
        if first == index:
            continue
        unequal = [pair for pair in zip(content(first), content(index), strict=True) if pair[0] != pair[1]]
        if not unequal:
            same.append((index, first))
            continue
        one, other = unequal[0]
        places = f"{one!r} at {records.origin(first)} and {other!r} at {records.origin(index)}"
        contradictions.append(f"{records.ids[index]!r} is {places}")
    if contradictions:
        raise UserError(listed(contradictions))
    if not same:
        return records
    origins = [records.origin(index) for index in same[0]]
    _log.warning("%s: %d rows repeat another and count once, as that of %s", origins[0], len(same), origins[1])
    return records.select(np.delete(np.arange(len(records)), [index for index, _ in same]))
