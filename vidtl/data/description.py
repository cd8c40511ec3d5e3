"""`dataset.yaml`: where a data set keeps what, in which format; with the root of a run it becomes `Records`.

The keys are documented in `datasets/README.md`. A data set needs such a folder, anywhere on disk, and no code.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vidtl.data.description_file import Section, read_section
from vidtl.data.formats import READERS, AnnotationFormat
from vidtl.data.formats.source import AnnotationSource, RecordsBuilder
from vidtl.data.layout import VideoFinder, check_relative, existing, find_annotation, pattern_fields
from vidtl.data.records import ClassNames, Records
from vidtl.errors import UserError, did_you_mean

FILE_NAME = "dataset.yaml"
REPOSITORY_DATASETS = Path(__file__).resolve().parents[2] / "datasets"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """One split; every path is relative to the root of the run."""

    annotations: tuple[str, ...]
    """Annotation files, read one after the other."""
    videos: tuple[str, ...]
    """Folders in which the videos are looked for, in this order."""
    replacements: tuple[str, ...]
    """Folders whose videos are preferred to those of `videos`, where they exist."""
    value: str
    """Value of the column `split` in rows of this split, where the data set names such a column."""


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
    """File of class names, in the data set's folder or the root; None: the sorted labels of all splits."""
    files: tuple[str, ...]
    """Name patterns of the videos, tried in order; the last suffix may be `.*`."""
    columns: Mapping[str, str]
    """Names of columns that differ from the format's own."""
    aliases: Mapping[str, str]
    """Other spellings of labels, and the class each one means."""
    protocol: str
    """Evaluation protocol where the run names none."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """Videos that the official annotation of a split lists."""

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several classes, or none."""
        return self.labels == "multi"

    def split(self, name: str) -> SplitDescription:
        """A split by name; UserError with the nearest name where there is none."""
        if name not in self.splits:
            raise UserError(f"data set {self.name!r} has no split {name!r}; {did_you_mean(name, self.splits)}")
        return self.splits[name]


def load_description(name_or_path: str) -> DatasetDescription:
    """Read `dataset.yaml` of a folder, or of a data set by name under `./datasets` or the repository's `datasets`.

    Raises:
        UserError: no such data set, or the file has an unknown key or an impossible value.
    """
    return parse_description(_find_folder(name_or_path))


def parse_description(folder: Path) -> DatasetDescription:
    """The description in a folder."""
    top = read_section(folder / FILE_NAME)
    format_name = top.choice("format", tuple(READERS))
    annotation_format = READERS[format_name]
    splits = {name: _parse_split(section, name) for name, section in top.sections("splits").items()}
    description = DatasetDescription(
        folder=folder,
        name=top.text("name", folder.resolve().name),
        title=top.text("title", folder.resolve().name),
        format=format_name,
        labels="multi" if top.choice("labels", ("single", "multi")) == "multi" else "single",
        splits=splits,
        classes=_relative(top, "classes", top.text("classes")) if "classes" in top else None,
        files=_parse_files(top, annotation_format),
        columns=top.texts_by_name("columns", tuple(annotation_format.columns)),
        aliases=top.texts_by_name("aliases"),
        protocol=top.text("protocol", "center"),
        expected=top.counts_by_name("expected", tuple(splits)),
    )
    top.refuse_other_keys()
    if annotation_format.numbered_classes and description.classes is None:
        raise UserError(f"{top.file}: format {format_name} needs `classes`, a file with lines 'c000 name'")
    return description


def read_records(description: DatasetDescription, split: str, root: Path) -> Records:
    """The annotated videos of one split; files that do not exist are kept (see `vidtl.data.layout.missing`).

    Raises:
        UserError: root, annotation or class file missing; a header, row, label, time or path that is not allowed.
    """
    if not existing(root, "data.root").is_dir():
        raise UserError(f"data.root {str(root)!r} is a file; the folder that holds annotations and videos is needed")
    chosen = description.split(split)
    if description.classes is not None:
        classes = _read_classes(description, root)
        builder = _read_split(description, chosen, root, classes)
    else:
        builders = {name: _read_split(description, each, root, None) for name, each in description.splits.items()}
        classes = ClassNames(tuple(sorted(set().union(*(each.label_names for each in builders.values())))))
        builder = builders[split]
    records = builder.build(classes)
    expected = description.expected.get(split, len(records))
    if expected != len(records):
        _log.warning("%s lists %d videos, %s has %d", records.annotation, len(records), description.title, expected)
    return records


def _read_split(
    description: DatasetDescription, split: SplitDescription, root: Path, classes: ClassNames | None
) -> RecordsBuilder:
    annotation_format = READERS[description.format]
    source = AnnotationSource(
        root=root,
        annotations=tuple(find_annotation(root, path) for path in split.annotations),
        multi_label=description.multi_label,
        columns={**annotation_format.columns, **description.columns},
        finder=VideoFinder(root, split.videos, description.files, split.replacements),
        videos=split.videos[0],
        split_value=split.value,
        split_values=frozenset(each.value for each in description.splits.values()),
        aliases=description.aliases,
        classes=classes,
    )
    return annotation_format.read(source)


def _read_classes(description: DatasetDescription, root: Path) -> ClassNames:
    """Names in the order of the file; a format with numbered classes has lines `c000 name`."""
    assert description.classes is not None
    beside = description.folder / description.classes
    file = beside if beside.is_file() else existing(root / description.classes, "file of class names")
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a text file in UTF-8 ({error})") from None
    while names and not names[-1]:
        names.pop()
    if READERS[description.format].numbered_classes:
        names = [_without_number(file, line, name) for line, name in enumerate(names, start=1)]
    try:
        return ClassNames(tuple(names))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _without_number(file: Path, line: int, text: str) -> str:
    number, _, name = text.partition(" ")
    if number != f"c{line - 1:03d}":
        raise UserError(
            f"{file}:{line}: {text!r} does not begin with 'c{line - 1:03d} '; classes are numbered from c000"
        )
    return name.strip()


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


def _parse_split(section: Section, name: str) -> SplitDescription:
    split = SplitDescription(
        annotations=tuple(_relative(section, "annotations", path) for path in section.texts("annotations")),
        videos=tuple(_relative(section, "videos", path) for path in section.texts("videos", (".",))),
        replacements=tuple(_relative(section, "replacements", path) for path in section.texts("replacements", ())),
        value=section.text("value", name),
    )
    section.refuse_other_keys()
    return split


def _parse_files(top: Section, annotation_format: AnnotationFormat) -> tuple[str, ...]:
    """Patterns checked by use, so that none can fail in the middle of a set."""
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
    return check_relative(path, f"{section.file}: {section.prefix}{key}")
