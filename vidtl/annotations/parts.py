"""Parts of a split in a fixed random order, with the videos of a group (recording, subject) in one part."""

import logging
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vidtl.annotations.patterns import pattern_expression
from vidtl.annotations.records import Records
from vidtl.errors import UserError
from vidtl.runtime.seeding import generator

# Parts of a split (such as a held-out part of the training set) must be the same in every run.
_SEED = 0

# abc_000417_000427, v_Archery_g08_c01, walk 12
_CLIP_NUMBER = re.compile(r"(?:_\d+[_-]\d+|[ _.#-](?:c|clip|part|seg|shot)?\d+|\d+)$", re.IGNORECASE)

_log = logging.getLogger(__name__)


_Groups = Callable[[Records], list[str]]


def choose_part(records: Records, part: tuple[float, float], pattern: str, annotated: _Groups) -> Records:
    """Select the records of a part, in the order of the annotation.

    Args:
        records: N records.
        part: start and end as shares; an end above 1 goes on at the beginning, so that `(0.4, 1.2)` is the rest of
            `(0.2, 0.4)`.
        pattern: pattern of paths with `{group}`; each group is in one part only, and classes and sizes are spread
            evenly as far as possible.
        annotated: returns the groups of records by their annotation, all empty if it has none.

    Raises:
        UserError: no record is in the part, or a record has no group.
    """
    n, (start, end) = len(records), part
    if part == (0.0, 1.0):
        return records
    groups = _groups(records, pattern, annotated)
    if groups is None:
        _warn_of_recordings(records)
        ranks = np.arange(round(start * n), round(end * n)) % n
        chosen = np.sort(generator(_SEED, n).permutation(n)[ranks])
    else:
        centers = group_centers(records, groups)
        chosen = np.flatnonzero(((start <= centers) & (centers < end)) | (centers + 1 < end))
    if not len(chosen):
        what = f"{n} videos" if groups is None else f"{len(set(groups))} groups"
        raise UserError(f"{records.annotation}: part {list(part)} of {what} is none of them")
    return records.select(chosen)


def _groups(records: Records, pattern: str, annotated: _Groups) -> list[str] | None:
    """Return the group of each record, or None; UserError as in `choose_part`."""
    if "{group}" in pattern:
        expression = pattern_expression(f"{pattern.removesuffix('.*')}.*")
        matches = map(expression.fullmatch, records.paths)
        values = [match["group"] if match else "" for match in matches]
    else:
        values = annotated(records)
        if not pattern and not any(values):
            return None
    if "" in values:
        i = values.index("")
        where = f"{records.origin(i)}: {records.paths[i]!r}"
        raise UserError(f"{where} has no group by {pattern or '{group}'!r}; every video needs one")
    return values


def group_centers(records: Records, groups: Sequence[str]) -> NDArray[np.float64]:
    """Place the groups one after the other on 0..1, each as long as its share; return the center of each record's [N].

    Groups are halved again and again, so that both halves have as equal numbers of videos and of each class as a greedy
    choice reaches, the largest group first. The order depends on nothing but records and groups.
    """
    _, group_of, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    videos, classes = records.distinct_labels()
    num_classes = len(records.classes)
    kinds = np.append(classes, np.full(len(records), num_classes))  # the videos themselves are one more class
    pairs = np.append(group_of[videos], group_of) * (num_classes + 1) + kinds
    keys, numbers = np.unique(pairs, return_counts=True)
    ends = np.searchsorted(keys, np.arange(1, len(sizes)) * (num_classes + 1))
    counts = list(zip(np.split(keys % (num_classes + 1), ends), np.split(numbers, ends), strict=True))
    shuffled = generator(_SEED, len(sizes)).permutation(len(sizes))
    largest_first = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    order = _spread(largest_first.tolist(), counts, np.bincount(kinds, minlength=num_classes + 1))
    centers = np.empty(len(sizes))
    centers[order] = (np.cumsum(sizes[order]) - sizes[order] / 2) / len(records)
    places: NDArray[np.float64] = centers[group_of]
    return places


_Counts = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Classes of each group, and their numbers of videos."""


def _spread(groups: list[int], counts: _Counts, totals: NDArray[np.int64]) -> list[int]:
    """Order groups, largest first, such that any interval of them is like the whole."""
    if len(groups) < 2:
        return groups
    halves: tuple[list[int], list[int]] = ([], [])
    sums = np.zeros((2, len(totals)))
    for group in groups:
        kinds, numbers = counts[group]
        half = int(np.argmin((sums[:, kinds] * numbers / totals[kinds]).sum(axis=1)))
        halves[half].append(group)
        sums[half, kinds] += numbers
    return [*_spread(halves[0], counts, totals), *_spread(halves[1], counts, totals)]


def _warn_of_recordings(records: Records) -> None:
    """Warn of clips that seem to be from one recording: the same file, or names that differ in their last number."""
    first: dict[str, int] = {}
    pair: tuple[int, int] | None = None
    for index, path in enumerate(records.paths):
        name = path.rpartition("/")[2]
        stem = name.rpartition(".")[0] or name
        recording = _CLIP_NUMBER.sub("", stem) or path
        other = first.setdefault(recording, index)
        if pair is None and other != index and (recording != stem or records.paths[other] == path):
            pair = other, index
    if pair and len(first) > 1:  # names that differ in nothing but a number, as video_1, are no sign
        message = "%s: %r and %r look cut from one recording, and a random part separates such clips; add `group`"
        _log.warning(message, records.annotation, *(records.ids[index] for index in pair))
