"""`dataset.yaml` as a dataclass, checked against what its annotation format allows.

The keys are documented in `datasets/README.md`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidtl.annotations.formats import READERS, AnnotationFormat
from vidtl.annotations.formats.path_list import check_fields
from vidtl.annotations.layout import check_relative, existing, pattern_fields
from vidtl.annotations.records import Records
from vidtl.config.checks import require, require_choice
from vidtl.config.load import load
from vidtl.errors import UserError, did_you_mean
from vidtl.runtime.seeding import generator

FILE_NAME = "dataset.yaml"

# Parts of a split (such as a held-out part of the training set) must be the same in every run.
_PART_SEED = 0


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """One split; all paths are relative to the root."""

    annotations: tuple[str, ...] = ()
    """Annotation files, read in this order; none if the folders of `videos` are the annotation."""
    videos: tuple[str, ...] = (".",)
    """Folders that are searched for videos, in this order."""
    replacements: tuple[str, ...] = ()
    """Folders whose videos are preferred to those of `videos`."""
    value: str = ""
    """Value of the column `split` in rows of this split, if there is such a column; default: its name."""
    part: tuple[float, float] = (0.0, 1.0)
    """Start and end of a part of those records, as shares, in a fixed random order."""

    def __post_init__(self) -> None:
        require(0 <= self.part[0] < self.part[1] <= 1, "part", list(self.part), "two rising shares such as [0, 0.8]")

    def choose(self, records: Records) -> Records:
        """Select the records of the part, in the order of the annotation; UserError if it is empty."""
        if self.part == (0.0, 1.0):
            return records
        start, end = (round(share * len(records)) for share in self.part)
        if start == end:
            raise UserError(f"{records.annotation}: part {list(self.part)} of {len(records)} videos is none of them")
        return records.select(np.sort(generator(_PART_SEED, len(records)).permutation(len(records))[start:end]))


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """A data set without its root."""

    folder: Path = Path()
    """Folder of the file."""
    name: str = ""
    """Default: name of the folder."""
    title: str = ""
    """Default: name of the folder."""
    format: str
    """A key of `READERS`."""
    labels: Literal["single", "multi"]
    splits: dict[str, SplitDescription]
    classes: str | None = None
    """File of class names, in the folder of the data set or the root; None: the sorted labels of all splits."""
    files: tuple[str, ...] = ()
    """Name patterns of the videos, tried in order; the last suffix may be `.*`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names of columns that differ from those of the format."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other spellings of labels, with the class of each."""
    protocol: str = "center"
    """Default evaluation protocol."""
    fields: tuple[str, ...] = ()
    """Fields of a line of a list without a header."""
    frame_rate: float | None = None
    """Frames per second of folders of images."""
    expected: dict[str, int] = field(default_factory=dict)
    """Number of videos in the official annotation of each split."""

    @property
    def multi_label(self) -> bool:
        """True if a video may have several classes, or none."""
        return self.labels == "multi"

    def split(self, name: str) -> SplitDescription:
        """Return a split; UserError with the nearest name if there is none."""
        if name not in self.splits:
            raise UserError(f"data set {self.name!r} has no split {name!r}; {did_you_mean(name, self.splits)}")
        return self.splits[name]


def parse_description(folder: Path) -> DatasetDescription:
    """Read and check the description in a folder.

    Raises:
        UserError: names the file, the key, the value and what is allowed.
    """
    file = existing(folder / FILE_NAME, "data set description")
    read = load(file, DatasetDescription)
    try:
        require_choice("format", read.format, tuple(READERS))
        annotation_format = READERS[read.format]
        _check_splits(read, annotation_format)
        _check_files(read.files, annotation_format.pattern_fields)
        _check_format(read, annotation_format)
        fields = _checked_fields(read, annotation_format)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    name = folder.resolve().name
    splits = {key: replace(split, value=split.value or key) for key, split in read.splits.items()}
    return replace(read, folder=folder, name=read.name or name, title=read.title or name, splits=splits, fields=fields)


def _check_splits(read: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    require(bool(read.splits), "splits", read.splits, "at least one entry")
    for name, split in read.splits.items():
        for key in ("annotations", "videos", "replacements"):
            _check_paths(getattr(split, key), f"splits.{name}.{key}")
        if bool(split.annotations) != annotation_format.annotation_files:
            needed = "one path or more" if annotation_format.annotation_files else f"none with format {read.format}"
            raise UserError(f"splits.{name}.annotations is {list(split.annotations)}; allowed: {needed}")


def _check_format(read: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    """Check the keys whose values depend on the format or on the splits."""
    name, has_classes = read.format, read.classes is not None
    _check_paths([read.classes] if read.classes is not None else [], "classes")
    for column in read.columns:
        require_choice("a key of columns", column, tuple(annotation_format.columns))
    for split, count in read.expected.items():
        require_choice("a key of expected", split, tuple(read.splits))
        require(count >= 0, f"expected.{split}", count, "0 or more")
    require(read.frame_rate is None or read.frame_rate > 0, "frame_rate", read.frame_rate, "a number above 0")
    if annotation_format.numbered_classes and not has_classes:
        raise UserError(f"format {name} needs `classes`, a file with lines 'c000 name'")
    if annotation_format.frames_only and not (has_classes and read.frame_rate):
        raise UserError(f"format {name} needs `classes`, the list of classes, and `frame_rate`")
    if annotation_format.multi_label not in (None, read.multi_label):
        other = "multi" if annotation_format.multi_label else "single"
        raise UserError(f"labels is {read.labels!r}; allowed with format {name}: {other!r}")


def _checked_fields(read: DatasetDescription, annotation_format: AnnotationFormat) -> tuple[str, ...]:
    if not annotation_format.fields:
        require(not read.fields, "fields", list(read.fields), f"none with format {read.format}")
        return ()
    return check_fields(read.fields or annotation_format.fields, "fields", read.multi_label)


def _check_files(patterns: tuple[str, ...], allowed: frozenset[str]) -> None:
    """Apply the patterns once, so that none can fail in the middle of a set."""
    needed = "patterns such as '{id}.mp4'" if allowed else "none with this format, whose annotation has the paths"
    require(bool(patterns) == bool(allowed), "files", list(patterns), needed)
    sample: dict[str, Any] = {"label": "label", "id": "id", "start": 0, "end": 1}
    for pattern in patterns:
        try:
            unknown = sorted(pattern_fields(pattern) - allowed)
            example = pattern if unknown else pattern.format_map(sample)
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"files has {pattern!r}, which is no name pattern ({error})") from None
        if unknown:
            hint = did_you_mean(unknown[0], sorted(allowed))
            raise UserError(f"files has {pattern!r} with the unknown field {unknown[0]!r}; {hint}")
        _check_paths([example], "files")


def _check_paths(paths: Iterable[str], key: str) -> None:
    for path in paths:
        for choice in path.split("|"):
            check_relative(choice.strip(), key)
