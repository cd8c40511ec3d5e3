"""The keys of `dataset.yaml`, and checks of those that depend on each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidtl.annotations.formats import AnnotationFormat
from vidtl.annotations.layout import check_relative, pattern_fields
from vidtl.config.checks import require, require_choice
from vidtl.errors import UserError, did_you_mean

_LIST_FIELDS = ("path", "label", "frames", "offset", "other")


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """One split; all paths are relative to the root; annotation files may also lie beside `dataset.yaml`."""

    annotations: tuple[str, ...] = ()
    """Annotation files, read in this order; none if the folders of `videos` are the annotation."""
    videos: tuple[str, ...] = (".",)
    """Folders that are searched for videos, in this order."""
    replacements: tuple[str, ...] = ()
    """Folders whose videos are preferred to those of `videos`."""
    value: str = ""
    """Value of the column `split` in rows of this split, if there is such a column; default: its name."""
    part: tuple[float, float] = (0.0, 1.0)
    """Start and end of a part of those records, as shares, in a fixed random order; see `choose_part`."""

    def __post_init__(self) -> None:
        start, end = self.part
        fits = 0 <= start < end <= start + 1 and start < 1
        require(fits, "part", list(self.part), "two rising shares such as [0, 0.8], at most 1 apart")


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
    """File of class names, found as annotation files are; None: the sorted labels of all splits."""
    files: tuple[str, ...] = ()
    """Name patterns of the videos, tried in order; the last suffix may be `.*`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names of columns that differ from those of the format; `a + b` combines two."""
    entries: tuple[str, ...] = ()
    """Keys that lead to the entries of a JSON file."""
    separator: str = ";"
    """Separates several labels of a row."""
    group: str = ""
    """Column, or pattern of paths with `{group}`, of the recording or subject, which a `part` does not split."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other spellings of labels, with the class of each."""
    protocol: str = "center"
    """Default evaluation protocol."""
    fields: tuple[str, ...] = ()
    """Fields of a line of a list without a header."""
    frame_rate: float | None = None
    """Frames per second of folders of images, and of times in frames."""
    time_unit: Literal["seconds", "frames"] = "seconds"
    """Unit of the columns `start` and `end`."""
    path_prefix: str = ""
    """Beginning that paths of annotations lose."""
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


def check_splits(read: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    """Check the keys of the splits."""
    require(bool(read.splits), "splits", read.splits, "at least one entry")
    for name, split in read.splits.items():
        for key in ("annotations", "videos", "replacements"):
            _check_paths(getattr(split, key), f"splits.{name}.{key}", may_be_absolute=key == "annotations")
        needed = "one path or more" if annotation_format.annotation_files else f"none with format {read.format}"
        fits = bool(split.annotations) == annotation_format.annotation_files
        require(fits, f"splits.{name}.annotations", list(split.annotations), needed)


def check_files(patterns: tuple[str, ...], allowed: tuple[str, ...] | None) -> None:
    """Apply the name patterns once, so that none can fail in the middle of a set; `allowed` as `pattern_fields`."""
    if allowed is not None:
        needed = "patterns such as '{id}.mp4'" if allowed else "none with this format, whose annotation has the paths"
        require(bool(patterns) == bool(allowed), "files", list(patterns), needed)
    for pattern in patterns:
        try:
            fields = pattern_fields(pattern)
            unknown = sorted(fields.difference(fields if allowed is None else allowed))
            numbers = {"start", "end"}.intersection(allowed or ())
            sample = {name: 0 if name in numbers or "*" in name else name for name in fields}
            example = pattern if unknown else pattern.format_map(sample)
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"files has {pattern!r}, which is no name pattern ({error})") from None
        if unknown:
            hint = did_you_mean(unknown[0], sorted(allowed or ()))
            raise UserError(f"files has {pattern!r} with the unknown field {unknown[0]!r}; {hint}")
        require(bool(fields), "files", list(patterns), "patterns with fields, such as '{id}.mp4'")
        check_relative(example, "files")


def check_format(read: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    """Check the keys whose values depend on the format or on the splits."""
    name = read.format
    _check_paths(read.classes.split(" + ") if read.classes is not None else [], "classes", may_be_absolute=True)
    is_pattern, can_have = "{group}" in read.group, bool(annotation_format.columns)
    require(is_pattern or can_have or not read.group, "group", read.group, "a pattern with {group} with this format")
    for column in read.columns:
        require_choice("a key of columns", column, tuple(annotation_format.columns))
    for split, count in read.expected.items():
        require_choice("a key of expected", split, tuple(read.splits))
        require(count >= 0, f"expected.{split}", count, "0 or more")
    require(read.frame_rate is None or read.frame_rate > 0, "frame_rate", read.frame_rate, "a number above 0")
    if annotation_format.numbered_classes and read.classes is None:
        raise UserError(f"format {name} needs `classes`, a file with lines 'c000 name'")
    if annotation_format.frames_only and (read.classes is None or not read.frame_rate):
        raise UserError(f"format {name} needs `classes`, the list of classes, and `frame_rate`")
    has_rate = annotation_format.pattern_fields is None and read.frame_rate is not None
    allowed = "'seconds', or 'frames' with `frame_rate` and format labelled_table"
    require(read.time_unit == "seconds" or has_rate, "time_unit", read.time_unit, allowed)
    if name == "file_names":
        require(all("{label}" in each for each in read.files), "files", list(read.files), "patterns with {label}")
    needed = "'multi'" if annotation_format.multi_label else "'single'"
    suits = annotation_format.multi_label in (None, read.multi_label)
    require(suits, "labels", read.labels, f"{needed} with format {name}")
    require(bool(annotation_format.fields) or not read.fields, "fields", list(read.fields), f"none with format {name}")
    fields = read.fields or annotation_format.fields
    for field_name in fields:
        require_choice("an entry of fields", field_name, _LIST_FIELDS)
        require(field_name == "other" or fields.count(field_name) == 1, "fields", list(fields), f"{field_name!r} once")
    if fields:
        require(fields[0] == "path" and "label" in fields, "fields", list(fields), "'path' first, and a 'label'")
        counted = "offset" not in fields or ("frames" in fields and read.frame_rate is not None)
        require(counted, "fields", list(fields), "'frames' and the key `frame_rate` with 'offset'")
        last = not read.multi_label or fields[-1] == "label"  # several labels follow the other fields
        require(last, "fields", list(fields), "'label' last with `labels: multi`")


def _check_paths(paths: Iterable[str], key: str, may_be_absolute: bool = False) -> None:
    for path in paths:
        for choice in map(str.strip, path.split("|")):
            check_relative(choice.removeprefix("/") if may_be_absolute else choice, key)
