"""The table of annotated videos: paths, labels and parts of files.

All columns are numpy arrays, including strings: a list of 300,000 Python objects is copied page by page into every
forked worker when reference counts change, and takes seconds to pickle for a spawned one.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidtl.errors import UserError, did_you_mean

ENTRY_SUFFIXES = (".json", ".parquet")
"""Endings of annotation files with numbered entries in place of lines."""


@dataclass(frozen=True, eq=False)
class StringColumn:
    """Read-only sequence of strings in two arrays: string i is `data[offsets[i]:offsets[i + 1]]` in UTF-8."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> "StringColumn":
        """Build a column from an iterable of strings."""
        growing = GrowingStrings()
        for string in strings:
            growing.append(string)
        return growing.column()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]  # negative numbers count from the end; IndexError outside
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        data = self.data.tobytes()
        start = 0
        for end in self.offsets[1:].tolist():
            yield data[start:end].decode()
            start = end

    def repeated(self) -> NDArray[np.int64]:
        """Return the numbers of strings that occur more than once, in rising order."""
        data, ends = self.data.tobytes(), self.offsets.tolist()
        hashes = np.fromiter((hash(data[start:end]) for start, end in pairwise(ends)), np.int64, len(self))
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        suspects = np.flatnonzero(counts[inverse] > 1).tolist()  # two different strings may have one hash
        count = Counter(self[index] for index in suspects)
        return np.array([index for index in suspects if count[self[index]] > 1], np.int64)


class GrowingStrings:
    """Builder of a `StringColumn`, with a third of the memory of a list of strings."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._offsets = array("q", [0])

    def append(self, string: str) -> None:
        """Add a string at the end."""
        self._data += string.encode()
        self._offsets.append(len(self._data))

    def column(self) -> StringColumn:
        """Return the column; nothing may be appended afterwards."""
        return StringColumn(np.frombuffer(self._data, np.uint8), np.frombuffer(self._offsets, np.int64))


def annotated_at(file: Path, number: int) -> str:
    """Format `file:line`, or `file, entry N`; the file alone for the number 0."""
    if not number:
        return str(file)
    return f"{file}, entry {number}" if file.suffix in ENTRY_SUFFIXES else f"{file}:{number}"


@dataclass(frozen=True)
class ClassNames:
    """Class names in the order of the model's outputs."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("the list of classes is empty; at least one name is needed")
        if "" in self.names:
            raise UserError(f"class {self.names.index('')} has an empty name; every class needs one")
        if len(self._numbers) < len(self.names):
            repeated = next(name for index, name in enumerate(self.names) if self._numbers[name] != index)
            raise UserError(f"class {repeated!r} is listed twice; class names must differ")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def index(self, name: str) -> int:
        """Return the number of a class; UserError with the nearest name if there is none."""
        if name not in self._numbers:
            raise UserError(f"unknown class {name!r}; {did_you_mean(name, self.names)}")
        return self._numbers[name]


@dataclass(frozen=True, eq=False)
class Records:
    """Annotated videos.

    The labels of record i are entries `label_offsets[i]` to `label_offsets[i + 1]` of the `label_...` columns.
    Times are seconds from the first frame of the file, whatever part of the file the record covers.
    """

    root: Path
    classes: ClassNames
    multi_label: bool
    annotation: Path
    """The annotation file, or the first one of several (see `origin`)."""
    ids: StringColumn
    """Unique within the split: the key of a video in predictions and metrics."""
    paths: StringColumn
    """Expected path relative to `root`, with forward slashes; the file may be missing."""
    lines: NDArray[np.int32]
    """First line or entry of the record in the annotation file, from 1; 0 without annotation files."""
    label_offsets: NDArray[np.int64]
    label_classes: NDArray[np.int32]
    label_starts_s: NDArray[np.float64]
    """Start of each label; -inf with an end of inf for a label of the whole video."""
    label_ends_s: NDArray[np.float64]
    segment_starts_s: NDArray[np.float64]
    """Part of the file that the record covers: 0 to inf for the whole file."""
    segment_ends_s: NDArray[np.float64]
    further_annotations: tuple[Path, ...] = ()
    file_numbers: NDArray[np.int16] | None = None
    """Annotation file of each record: 0 for `annotation`, 1 for the first of `further_annotations`; None: all 0."""
    frame_rate: float | None = None
    """Frames per second of folders of images."""
    lengths_s: NDArray[np.float64] | None = None
    """Annotated lengths of the videos, where the format has them; NaN for none."""

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, index: int) -> Path:
        """Return the expected path of the video."""
        return self.root / self.paths[index]

    def origin(self, index: int) -> str:
        """Return the place of the annotation, or the path of the video without annotation files."""
        if self.lines[index] == 0:
            return str(self.path(index))
        number = 0 if self.file_numbers is None else int(self.file_numbers[index])
        file = (self.annotation, *self.further_annotations)[number]
        return annotated_at(file, int(self.lines[index]))

    def labels(self, index: int, start_s: float = -np.inf, end_s: float = np.inf) -> NDArray[np.int32]:
        """Return the classes of the video, or a part, rising; as in Charades, none that ends where the part begins."""
        entries = self._entries(index)
        times = np.array([self.label_starts_s[entries], self.label_ends_s[entries]], np.float32)  # as in older runs
        active = (times[0] < end_s) & (times[1] > start_s)
        return np.unique(self.label_classes[entries][active])

    def targets(self, index: int, start_s: float = -np.inf, end_s: float = np.inf) -> NDArray[np.float32]:
        """Return multi-hot float32 [K] of the whole video, or of the part between the given limits."""
        targets = np.zeros(len(self.classes), np.float32)
        targets[self.labels(index, start_s, end_s)] = 1
        return targets

    def video_targets(self) -> NDArray[np.float32]:
        """Return multi-hot float32 [N, K] of all whole videos."""
        targets = np.zeros((len(self), len(self.classes)), np.float32)
        targets[self.distinct_labels()] = 1
        return targets

    def distinct_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return record number and class of every video-level label, each pair once and in rising order."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.label_offsets))
        pairs = np.unique(owners * len(self.classes) + self.label_classes)
        return np.divmod(pairs, len(self.classes))

    def class_counts(self) -> NDArray[np.int64]:
        """Count the videos of each class: [K]."""
        return np.bincount(self.distinct_labels()[1], minlength=len(self.classes))

    def with_labels(self, labels: ArrayLike) -> NDArray[np.int64]:
        """Return the numbers of records whose video-level classes are exactly `labels`, in rising order."""
        wanted = np.unique(np.asarray(labels, np.int64))
        videos, classes = self.distinct_labels()
        inside = np.isin(classes, wanted)
        found, others = (np.bincount(videos[chosen], minlength=len(self)) for chosen in (inside, ~inside))
        return np.flatnonzero((found == len(wanted)) & (others == 0))

    def labels_sha256(self) -> str:
        """Hash class names, ids and labels in their order, without paths."""
        times = np.array([self.label_starts_s, self.label_ends_s], np.float32)  # as older runs recorded it
        labels = (self.label_offsets, self.label_classes, *times)
        return columns_sha256(self.classes.names, (self.ids.data, self.ids.offsets, *labels))

    def select(self, indices: ArrayLike) -> "Records":
        """Return the given records in the given order."""
        chosen = np.asarray(indices, np.int64)
        counts = np.diff(self.label_offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        entries = np.arange(offsets[-1]) + np.repeat(self.label_offsets[chosen] - offsets[:-1], counts)
        return replace(
            self,
            ids=StringColumn.from_strings(self.ids[index] for index in chosen),
            paths=StringColumn.from_strings(self.paths[index] for index in chosen),
            lines=self.lines[chosen],
            label_offsets=offsets,
            label_classes=self.label_classes[entries],
            label_starts_s=self.label_starts_s[entries],
            label_ends_s=self.label_ends_s[entries],
            segment_starts_s=self.segment_starts_s[chosen],
            segment_ends_s=self.segment_ends_s[chosen],
            file_numbers=None if self.file_numbers is None else self.file_numbers[chosen],
            lengths_s=None if self.lengths_s is None else self.lengths_s[chosen],
        )

    def _entries(self, index: int) -> slice:
        index = range(len(self))[index]
        return slice(int(self.label_offsets[index]), int(self.label_offsets[index + 1]))


def columns_sha256(texts: Iterable[str], columns: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of texts and columns of numbers."""
    digest = hashlib.sha256("\0".join(texts).encode())
    for column in columns:
        digest.update(f"{column.dtype}{column.shape}".encode())
        digest.update(column.tobytes())
    return digest.hexdigest()
