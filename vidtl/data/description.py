"""`dataset.yaml`: layout and format of a data set, and reading of its `Records` from the root of a run.

The keys are documented in `datasets/README.md`. A data set needs this file in a folder, anywhere on disk, and no code.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidtl.data.class_list import ClassList, read_class_list
from vidtl.data.description_file import Section, read_section
from vidtl.data.formats import READERS, AnnotationFormat
from vidtl.data.formats.path_list import check_fields
from vidtl.data.formats.source import AnnotationSource, RecordsBuilder
from vidtl.data.formats.text_files import lacks_column
from vidtl.data.layout import VideoFinder, check_relative, existing, find_annotations, pattern_fields
from vidtl.data.records import ClassNames, Records
from vidtl.errors import UserError, did_you_mean
from vidtl.runtime.seeding import generator

FILE_NAME = "dataset.yaml"
_VIDTL = Path(__file__).resolve().parents[1]
REPOSITORY_DATASETS = (_VIDTL if (_VIDTL / "datasets").is_dir() else _VIDTL.parent) / "datasets"

# Parts of a split (such as a held-out part of the training set) must be the same in every run.
_PART_SEED = 0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """One split; all paths are relative to the root."""

    annotations: tuple[str, ...]
    """Annotation files, read in this order; none if the folders of `videos` are the annotation."""
    videos: tuple[str, ...]
    """Folders that are searched for videos, in this order."""
    replacements: tuple[str, ...]
    """Folders whose videos are preferred to those of `videos`."""
    value: str
    """Value of the column `split` in rows of this split, if there is such a column."""
    part: tuple[float, float] = (0.0, 1.0)
    """Start and end of a part of those records, as shares, in a fixed random order."""

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

    folder: Path
    name: str
    title: str
    format: str
    labels: Literal["single", "multi"]
    splits: Mapping[str, SplitDescription]
    classes: str | None
    """File of class names, in the folder of the data set or the root; None: the sorted labels of all splits."""
    files: tuple[str, ...]
    """Name patterns of the videos, tried in order; the last suffix may be `.*`."""
    columns: Mapping[str, str]
    """Names of columns that differ from those of the format."""
    aliases: Mapping[str, str]
    """Other spellings of labels, with the class of each."""
    protocol: str
    """Default evaluation protocol."""
    fields: tuple[str, ...] = ()
    """Fields of a line of a list without a header."""
    frame_rate: float | None = None
    """Frames per second of folders of images."""
    expected: Mapping[str, int] = field(default_factory=dict)
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


def load_description(name_or_path: str) -> DatasetDescription:
    """Read `dataset.yaml` of a folder, or of a data set by name under `./datasets` or the repository's `datasets`.

    Raises:
        UserError: no such data set, or the file has an unknown key or an impossible value.
    """
    with _access_needed(Path(name_or_path)):
        return parse_description(_find_folder(name_or_path))


def parse_description(folder: Path) -> DatasetDescription:
    """Parse the description in a folder."""
    top = read_section(folder / FILE_NAME)
    format_name = top.choice("format", tuple(READERS))
    annotation_format = READERS[format_name]
    multi_label = top.choice("labels", ("single", "multi")) == "multi"
    splits = {name: _parse_split(section, name, annotation_format) for name, section in top.sections("splits").items()}
    description = DatasetDescription(
        folder=folder,
        name=top.text("name", folder.resolve().name),
        title=top.text("title", folder.resolve().name),
        format=format_name,
        labels="multi" if multi_label else "single",
        splits=splits,
        classes=_relative(top, "classes", top.text("classes")) if "classes" in top else None,
        files=_parse_files(top, annotation_format),
        columns=top.texts_by_name("columns", tuple(annotation_format.columns)),
        aliases=top.texts_by_name("aliases"),
        protocol=top.text("protocol", "center"),
        fields=_parse_fields(top, annotation_format, multi_label),
        frame_rate=top.positive("frame_rate"),
        expected=top.counts_by_name("expected", tuple(splits)),
    )
    top.refuse_other_keys()
    _check_format(top, description, annotation_format)
    return description


def _check_format(top: Section, description: DatasetDescription, annotation_format: AnnotationFormat) -> None:
    """Check the keys that depend on the format."""
    name = description.format
    if annotation_format.numbered_classes and description.classes is None:
        raise UserError(f"{top.file}: format {name} needs `classes`, a file with lines 'c000 name'")
    if annotation_format.frames_only and (description.classes is None or description.frame_rate is None):
        raise UserError(f"{top.file}: format {name} needs `classes`, the list of classes, and `frame_rate`")
    if annotation_format.multi_label not in (None, description.multi_label):
        other = "multi" if annotation_format.multi_label else "single"
        raise UserError(f"{top.file}: labels is {description.labels!r}; format {name} has {other!r}")


def read_records(description: DatasetDescription, split: str, root: Path) -> Records:
    """Read the annotated videos of one split, including those whose files are missing.

    Raises:
        UserError: root, annotation or class file missing or without permission; an invalid header, row, label, time or
            path.
    """
    with _access_needed(root):
        return _read_records(description, split, root)


def find_unlabelled(description: DatasetDescription, split: str, root: Path) -> Path | None:
    """Return the first annotation file of a split without the column `label`, as in published test lists."""
    column = {**READERS[description.format].columns, **description.columns}.get("label")
    files = (file for path in description.splits[split].annotations for file in find_annotations(root, path))
    return next((file for file in files if column and lacks_column(file, column)), None)


def _read_records(description: DatasetDescription, split: str, root: Path) -> Records:
    if not existing(root, "data.root").is_dir():
        raise UserError(f"data.root {str(root)!r} is a file; the folder that holds annotations and videos is needed")
    chosen = description.split(split)
    if description.classes is not None:
        class_list = _read_classes(description, root)
        classes = class_list.names
        builder = _read_split(description, chosen, root, class_list)
    else:
        builders = {name: _read_split(description, each, root, None) for name, each in description.splits.items()}
        classes = ClassNames(tuple(sorted(set().union(*(each.label_names for each in builders.values())))))
        builder = builders[split]
    records = chosen.choose(builder.build(classes))
    expected = description.expected.get(split, len(records))
    if expected != len(records):
        _log.warning("%s lists %d videos, %s has %d", records.annotation, len(records), description.title, expected)
    return records


@contextmanager
def _access_needed(path: Path) -> Iterator[None]:
    """Convert missing permissions to a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _read_split(
    description: DatasetDescription, split: SplitDescription, root: Path, classes: ClassList | None
) -> RecordsBuilder:
    annotation_format = READERS[description.format]
    source = AnnotationSource(
        root=root,
        annotations=_annotations(split, root, annotation_format),
        multi_label=description.multi_label,
        columns={**annotation_format.columns, **description.columns},
        finder=VideoFinder(root, split.videos, description.files, split.replacements),
        split_value=split.value,
        split_values=frozenset(each.value for each in description.splits.values()),
        aliases=description.aliases,
        classes=None if classes is None else classes.names,
        first_class=0 if classes is None else classes.first_number,
        fields=description.fields,
        frame_rate=description.frame_rate,
    )
    return annotation_format.read(source)


def _read_classes(description: DatasetDescription, root: Path) -> ClassList:
    """Read the list of classes from the folder of the description or from the root."""
    assert description.classes is not None
    beside = description.folder / description.classes
    file = beside if beside.is_file() else find_annotations(root, description.classes, "file of class names")[0]
    return read_class_list(file, READERS[description.format].numbered_classes)


def _find_folder(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if (path / FILE_NAME).is_file():
        return path
    if len(path.parts) != 1 or path.is_absolute() or path.parts[0] == "..":
        existing(path / FILE_NAME, "data.dataset")
    places = (Path("datasets"), REPOSITORY_DATASETS)
    for place in places:
        if (place / path / FILE_NAME).is_file():
            return place / path
    names = sorted({found.parent.name for place in places for found in place.glob(f"*/{FILE_NAME}")})
    raise UserError(
        f"data.dataset is {name_or_path!r}, neither a data set by name nor a folder with a {FILE_NAME}; "
        f"{did_you_mean(name_or_path, names)}"
    )


def _annotations(split: SplitDescription, root: Path, annotation_format: AnnotationFormat) -> tuple[Path, ...]:
    """Return the annotation files of a split, or the folders of its videos."""
    if annotation_format.annotation_files:
        return tuple(file for path in split.annotations for file in find_annotations(root, path))
    folders = tuple(existing(root / folder, "folder of a split") for folder in split.videos)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"folder of a split {str(folder)!r} is a file")
    return folders


def _parse_fields(top: Section, annotation_format: AnnotationFormat, multi_label: bool) -> tuple[str, ...]:
    if not annotation_format.fields:
        return ()
    return check_fields(top.texts("fields", annotation_format.fields), f"{top.file}: fields", multi_label)


def _parse_split(section: Section, name: str, annotation_format: AnnotationFormat) -> SplitDescription:
    annotations = section.texts("annotations") if annotation_format.annotation_files else ()
    split = SplitDescription(
        annotations=tuple(_relative(section, "annotations", path) for path in annotations),
        videos=tuple(_relative(section, "videos", path) for path in section.texts("videos", (".",))),
        replacements=tuple(_relative(section, "replacements", path) for path in section.texts("replacements", ())),
        value=section.text("value", name),
        part=section.range_of_shares("part"),
    )
    section.refuse_other_keys()
    return split


def _parse_files(top: Section, annotation_format: AnnotationFormat) -> tuple[str, ...]:
    """Parse and apply the patterns once, so that none can fail in the middle of a set."""
    if not annotation_format.pattern_fields:
        return ()
    patterns = top.texts("files")
    sample: dict[str, Any] = {"label": "label", "id": "id", "start": 0, "end": 1}
    for pattern in patterns:
        try:
            unknown = sorted(pattern_fields(pattern) - annotation_format.pattern_fields)
            example = pattern if unknown else pattern.format_map(sample)
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{top.file}: files has {pattern!r}, which is no name pattern ({error})") from None
        if unknown:
            hint = did_you_mean(unknown[0], sorted(annotation_format.pattern_fields))
            raise UserError(f"{top.file}: files has {pattern!r} with the unknown field {unknown[0]!r}; {hint}")
        _relative(top, "files", example)
    return patterns


def _relative(section: Section, key: str, path: str) -> str:
    for choice in path.split("|"):
        check_relative(choice.strip(), f"{section.file}: {section.prefix}{key}")
    return path
