"""Checks of the keys of `dataset.yaml` that depend on each other."""

from collections.abc import Iterable

from vidtl.annotations.formats import FILE_NAME_FIELDS, READERS, AnnotationFormat
from vidtl.annotations.keys import DatasetDescription
from vidtl.annotations.layout import check_relative, pattern_fields
from vidtl.config.checks import require, require_choice
from vidtl.errors import UserError, did_you_mean

_MOST_PLACES = 1000  # each row is searched in all of them
_LIST_FIELDS = ("path", "label", "frames", "offset", "other")


def check_keys(read: DatasetDescription) -> None:
    """Check the keys that depend on each other; UserError with key and value."""
    require_choice("format", read.format, tuple(READERS))
    annotation_format = READERS[read.format]
    _check_splits(read, annotation_format)
    if (allowed := annotation_format.pattern_fields) is not None:
        needed = "patterns such as '{id}.mp4'" if allowed else "none with this format, whose annotation has the paths"
        require(bool(read.files) == bool(allowed), "files", list(read.files), needed)
    for pattern in read.files:
        _check_pattern("files", pattern, allowed)
    if "{" in read.group:
        _check_pattern("group", read.group, FILE_NAME_FIELDS)
    _check_format(read, annotation_format)


def _check_splits(read: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    require(bool(read.splits), "splits", read.splits, "at least one entry")
    require(len(read.splits) <= _MOST_PLACES, "splits", f"{len(read.splits)} entries", f"{_MOST_PLACES} at most")
    for name, split in read.splits.items():
        for key in ("annotations", "videos", "replacements"):
            _check_paths(getattr(split, key), f"splits.{name}.{key}", may_be_absolute=key == "annotations")
            places = len(getattr(split, key)) * max(1, len(read.files))
            require(places <= _MOST_PLACES, f"splits.{name}.{key}", f"{places} places", f"{_MOST_PLACES} in all")
        needed = "one path or more" if annotation_format.annotation_files else f"none with format {read.format}"
        fits = bool(split.annotations) == annotation_format.annotation_files
        require(fits, f"splits.{name}.annotations", list(split.annotations), needed)


def _check_pattern(key: str, pattern: str, allowed: tuple[str, ...] | None) -> None:
    """Apply a name pattern once, so that it cannot fail in the middle of a set; `allowed` as `pattern_fields`."""
    try:
        fields = pattern_fields(pattern)
        unknown = sorted(fields.difference(fields if allowed is None else allowed))
        numbers = {name for name in fields if "*" in name or (allowed and name in ("start", "end"))}
        example = pattern if unknown else pattern.format_map({name: 0 if name in numbers else name for name in fields})
    except ValueError as error:
        raise UserError(f"{key} has {pattern!r}, which is no name pattern ({error})") from None
    if unknown:
        hint = did_you_mean(unknown[0], sorted(allowed or ()))
        raise UserError(f"{key} has {pattern!r} with the unknown field {unknown[0]!r}; {hint}")
    require(bool(fields), key, pattern, "patterns with fields, such as '{id}.mp4'")
    check_relative(example, key)


def _check_format(read: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    """Check the keys whose values depend on the format or on the splits."""
    name = read.format
    _check_paths(read.classes.split(" + ") if read.classes is not None else [], "classes", may_be_absolute=True)
    if read.group and not ("{group}" in read.group or ("{" not in read.group and annotation_format.columns)):
        raise UserError(f"group is {read.group!r}; allowed: a pattern with {{group}}, or a column of a table")
    for column in read.columns:
        require_choice("a key of columns", column, tuple(annotation_format.columns))
    for split, count in read.expected.items():
        require_choice("a key of expected", split, tuple(read.splits))
        require(count >= 0, f"expected.{split}", count, "0 or more")
    require(read.frame_rate is None or read.frame_rate > 0, "frame_rate", read.frame_rate, "a number above 0")
    for key in annotation_format.needs:
        require(bool(getattr(read, key)), key, getattr(read, key), f"a value, which format {name} needs")
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
