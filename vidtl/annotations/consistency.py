"""Rows that repeat or contradict each other, and labels that look like other spellings or like lists."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vidtl.annotations.records import Records
from vidtl.errors import UserError

_MOST_LISTED = 20
_LIST = re.compile(r"\[.*\]|.+[|;].+|.+,[^\s\d].*")

_log = logging.getLogger(__name__)


def merge_repeats(records: Records) -> Records:
    """Keep the first of records with equal id, path and labels, and log their number.

    Raises:
        UserError: one id with different labels or paths; up to 20 are listed.
    """
    columns = records.label_classes, records.label_starts_s, records.label_ends_s

    def content(index: int) -> tuple[str, set[tuple[float, ...]]]:
        part = slice(*records.label_offsets[index : index + 2])
        return records.paths[index], set(zip(*(column[part].tolist() for column in columns), strict=True))

    first_of: dict[str, int] = {}
    same: list[tuple[int, int]] = []
    contradictions: list[str] = []
    for index in records.ids.repeated().tolist():
        first = first_of.setdefault(records.ids[index], index)
        if index != first and content(index) == content(first):
            same.append((index, first))
        elif index != first:
            said = [", ".join(records.classes.names[k] for k in records.labels(each)) for each in (first, index)]
            places = f"{said[0]!r} at {records.origin(first)} and {said[1]!r} at {records.origin(index)}"
            contradictions.append(f"{records.ids[index]!r} is {places}")
    if contradictions:
        more = len(contradictions) - _MOST_LISTED
        raise UserError("; ".join(contradictions[:_MOST_LISTED]) + (f"; and {more} more" if more > 0 else ""))
    if not same:
        return records
    origins = [records.origin(index) for index in same[0]]
    _log.warning("%s: %d rows repeat another and count once, as that of %s", origins[0], len(same), origins[1])
    return records.select(np.delete(np.arange(len(records)), [index for index, _ in same]))


def warn_of_labels(annotation: Path, classes: Iterable[str], labels: Iterable[str], places: Mapping[str, str]) -> None:
    """Log classes that differ in spelling only, and labels that look like several, with the place of the first use."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(re.sub(r"[\s_]+", "", normalize("NFC", name).casefold()), []).append(name)
    alike = [name for group in spellings.values() if len(group) > 1 for name in group]
    parts = {label: {part.strip() for part in label.split(",")} for label in labels}
    uses = Counter(part for each in parts.values() for part in each)
    # a comma with a space is part of many names: a list has parts that other labels have, too
    lists = [
        label for label, each in parts.items() if _LIST.fullmatch(label) or len(each) > 1 < max(uses[p] for p in each)
    ]
    for names, kind in ((alike, "differ in case, spaces or accents only"), (lists, "look like several")):
        if names:
            place = next((places[name] for name in names if name in places), annotation)
            examples = " and ".join(map(repr, names[:2]))
            _log.warning("%s: %d labels %s, as %s", place, len(names), kind, examples)
