"""Parts of a split in a fixed random order, with the videos of a group (recording, subject) in one part."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vidtl.annotations.layout import pattern_expression
from vidtl.annotations.records import Records
from vidtl.errors import UserError
from vidtl.runtime.seeding import generator

# Parts of a split (such as a held-out part of the training set) must be the same in every run.
_SEED = 0

_VIDEOS = -1  # counts videos, beside the numbers of classes

# abc_000417_000427, v_Archery_g08_c01, walk 12
_CLIP_NUMBER = re.compile(r"(?:_\d+[_-]\d+|[ _.#-](?:c|clip|part|seg|shot)?\d+|\d+)$", re.IGNORECASE)

_log = logging.getLogger(__name__)


def choose_part(records: Records, part: tuple[float, float], pattern: str, annotated: Sequence[str]) -> Records:
    """Select the records of a part, in the order of the annotation; UserError for none, or one without a group.

    `part` is start and end as shares; an end above 1 goes on at the beginning: `(0.4, 1.2)` is the rest of `(0.2,
    0.4)`. `pattern` is the column, or pattern of paths with `{group}`, of the groups; each is in one part only, and
    classes and sizes are spread evenly as far as possible. `annotated` are the groups [N] by the annotation, or empty.
    """
    groups, n = annotated, len(records)
    if "{group}" in pattern:
        expression = pattern_expression(f"{pattern.removesuffix('.*')}.*")
        groups = [match["group"] if match else "" for match in map(expression.fullmatch, records.paths)]
    if not pattern and not any(groups):
        _warn_of_recordings(records)
        centers = np.empty(n)
        centers[generator(_SEED, n).permutation(n)] = np.arange(n) + 0.5
    elif "" in groups:
        where = f"{records.origin(groups.index(''))}: {records.paths[groups.index('')]!r}"
        raise UserError(f"{where} has no group by {pattern or '{group}'!r}; every video needs one")
    else:
        centers = group_centers(records, groups)
    start, end = (round(share % 1, 12) * n for share in part)  # exactly the same for 0.2 and 1.2
    after, before = start <= centers, centers < (end or n)
    chosen = np.flatnonzero(after & before if part[1] <= 1 else after | before)
    if not len(chosen):
        what = f"{len(set(groups))} groups" if any(groups) else f"{n} videos"
        raise UserError(f"{records.annotation}: part {list(part)} of {what} is none of them")
    return records.select(chosen)


def group_centers(records: Records, groups: Sequence[str]) -> NDArray[np.float64]:
    """Place the videos of all groups one after the other on 0..N; return the center of the group of each record [N].

    Groups are halved again and again, so that both halves have as equal numbers of videos and of each class as a greedy
    choice reaches, the largest group first. The order depends on nothing but records and groups.
    """
    counts: dict[str, Counter[int]] = {group: Counter() for group in sorted(set(groups))}
    for group in groups:
        counts[group][_VIDEOS] += 1
    for video, label in zip(*(column.tolist() for column in records.distinct_labels()), strict=True):
        counts[groups[video]][label] += 1
    names = [*counts]
    shuffled = [names[index] for index in generator(_SEED, len(names)).permutation(len(names))]
    totals = Counter[int]()
    for each in counts.values():
        totals.update(each)
    end, centers = 0, {}
    for group in _spread(sorted(shuffled, key=lambda group: -counts[group][_VIDEOS]), counts, totals):
        centers[group] = end + counts[group][_VIDEOS] / 2
        end += counts[group][_VIDEOS]
    return np.array([centers[group] for group in groups])


def _spread(groups: list[str], counts: Mapping[str, Counter[int]], totals: Counter[int]) -> list[str]:
    """Order groups, largest first, such that any interval of them is like the whole."""
    if len(groups) < 2:
        return groups
    halves: tuple[list[str], list[str]] = ([], [])
    sums = Counter[int](), Counter[int]()
    for group in groups:
        costs = [sum(own * half[kind] / totals[kind] for kind, own in counts[group].items()) for half in sums]
        smaller = costs.index(min(costs))
        halves[smaller].append(group)
        sums[smaller].update(counts[group])
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
        message = "%s: %r and %r look cut from one recording, and a random part separates such clips; %s"
        hint = "folders train and val, or `group` in dataset.yaml, keep them together"
        _log.warning(message, records.annotation, *(records.ids[index] for index in pair), hint)
