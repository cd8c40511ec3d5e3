"""`dataset.yaml`: layout and format of a data set, and reading of its `Records` from the root of a run.

The keys are documented in `datasets/README.md`. A data set needs this file in a folder, anywhere on disk, and no code.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vidtl.annotations.formats import READERS, AnnotationFormat
from vidtl.annotations.formats.builder import RecordsBuilder
from vidtl.annotations.formats.source import AnnotationSource
from vidtl.annotations.keys import DatasetDescription, SplitDescription, check_format, check_splits
from vidtl.annotations.layout import AnnotationPlaces, VideoFinder, check_inside, existing
from vidtl.annotations.parts import choose_part
from vidtl.annotations.patterns import check_patterns
from vidtl.annotations.records import ClassNames, Records
from vidtl.annotations.text_files import ClassList, read_class_list
from vidtl.config.checks import require_choice
from vidtl.config.load import load
from vidtl.errors import UserError, did_you_mean

FILE_NAME = "dataset.yaml"

_VIDTL = Path(__file__).resolve().parents[1]
REPOSITORY_DATASETS = (_VIDTL if (_VIDTL / "datasets").is_dir() else _VIDTL.parent) / "datasets"

_log = logging.getLogger(__name__)


def load_description(name_or_path: str) -> DatasetDescription:
    """Read `dataset.yaml` of a folder, or of a data set by name under `./datasets` or the repository's `datasets`.

    UserError if there is no such data set, or with the file, key and value if one is not allowed.
    """
    with _access_needed(Path(name_or_path)):
        folder = _find_folder(name_or_path)
        file = check_inside(folder / FILE_NAME, folder, "data set description")
        read = load(file, DatasetDescription)
    try:
        require_choice("format", read.format, tuple(READERS))
        annotation_format = READERS[read.format]
        check_splits(read, annotation_format)
        check_patterns(read.files, annotation_format.pattern_fields)
        fields = check_format(read, annotation_format)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    name = folder.resolve().name
    splits = {key: replace(split, value=split.value or key) for key, split in read.splits.items()}
    return replace(read, folder=folder, name=read.name or name, title=read.title or name, splits=splits, fields=fields)


def read_records(description: DatasetDescription, split: str, root: Path, follow_links: bool = True) -> Records:
    """Read the annotated videos of one split, including those whose files are missing; see `AnnotationPlaces`.

    Raises:
        UserError: root, annotation or class file missing or not readable; an invalid header, row, label, time or path.
    """
    with _access_needed(root):
        places = AnnotationPlaces(root, description.folder, follow_links)
        classes, builder = _read_labels(description, split, places)
        records = builder.build(classes)
        if not records.label_classes.size:
            raise UserError(f"{records.annotation} has no labels for split {split!r}; only predict.py reads such lists")
        records = choose_part(records, description.splits[split].part, description.group, builder.groups)
    expected = description.expected.get(split, len(records))
    if expected != len(records):
        _log.warning("%s lists %d videos, %s has %d", records.annotation, len(records), description.title, expected)
    return records


def read_unlabeled(
    description: DatasetDescription, split: str, root: Path, class_names: Sequence[str], follow_links: bool = True
) -> Records:
    """Read a split that may lack labels, such as a published test list, for prediction.

    `class_names` are those of the model, which count where the data set has no list of classes.
    """
    with _access_needed(root):
        places = AnnotationPlaces(root, description.folder, follow_links)
        lists = _read_classes(description, places) or [
            ClassList(ClassNames(tuple(class_names)), dict(enumerate(class_names)))
        ]
        names = lists[0].names if len(lists) == 1 else ClassNames(tuple(class_names))
        chosen = description.split(split)
        builder = _read_split(description, chosen, places, lists, labeled=False)
        return choose_part(builder.build(names), chosen.part, description.group, builder.groups)


def find_unlabeled(description: DatasetDescription, split: str, root: Path) -> Path | None:
    """Return the first annotation file of a split without labels, such as a published test list, or None."""
    chosen = description.splits[split]
    if not chosen.annotations:
        return None
    places = AnnotationPlaces(root, description.folder)
    builder = _read_split(description, chosen, places, _read_classes(description, places), labeled=False)
    return None if builder.label_names else builder.source.annotations[0]


@contextmanager
def _access_needed(path: Path) -> Iterator[None]:
    """Convert missing permissions to a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


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


def _read_classes(description: DatasetDescription, places: AnnotationPlaces) -> list[ClassList]:
    """Read the lists of classes, one for each part of a label."""
    if not existing(places.root, "data.root").is_dir():
        raise UserError(f"data.root {str(places.root)!r} is a file; the folder of annotations and videos is needed")
    names = description.classes.split(" + ") if description.classes else []
    return [read_class_list(places.find(name, "file of class names")[0]) for name in names]


def _read_labels(
    description: DatasetDescription, split: str, places: AnnotationPlaces
) -> tuple[ClassNames, RecordsBuilder]:
    """Read a split and the classes: those of the list, or the sorted labels of all splits."""
    chosen, lists = description.split(split), _read_classes(description, places)
    if len(lists) == 1:
        return lists[0].names, _read_split(description, chosen, places, lists)
    splits = description.splits.items()
    builders = {name: _read_split(description, each, places, lists, labeled=name == split) for name, each in splits}
    labels = set[str]().union(*(each.label_names for each in builders.values()))
    return ClassNames(tuple(sorted(labels))), builders[split]


def _read_split(
    description: DatasetDescription,
    split: SplitDescription,
    places: AnnotationPlaces,
    lists: Sequence[ClassList],
    labeled: bool = True,
) -> RecordsBuilder:
    annotation_format = READERS[description.format]
    columns = {**annotation_format.columns, **description.columns}
    if description.group and "{" not in description.group:
        columns["group"] = description.group
    if description.files:
        columns["path"] = None
    source = AnnotationSource(
        root=places.root,
        annotations=_annotations(split, places, annotation_format),
        multi_label=description.multi_label,
        columns=columns,
        finder=VideoFinder(places.root, split.videos, description.files, split.replacements),
        split_value=split.value,
        split_values=frozenset(each.value for each in description.splits.values()),
        aliases=description.aliases,
        classes=lists[0].names if len(lists) == 1 else None,
        class_numbers=lists[0].by_number if len(lists) == 1 else {},
        fields=description.fields,
        frame_rate=description.frame_rate,
        entries=description.entries,
        separator=description.separator,
        label_parts=tuple(lists) if len(lists) > 1 else (),
        labeled=labeled,
        time_unit=description.time_unit,
        path_prefix=description.path_prefix,
    )
    return annotation_format.read(source)


def _annotations(
    split: SplitDescription, places: AnnotationPlaces, annotation_format: AnnotationFormat
) -> tuple[Path, ...]:
    """Return the annotation files of a split, or the folders of its videos."""
    if annotation_format.annotation_files:
        return tuple(file for path in split.annotations for file in places.find(path))
    folders = tuple(existing(places.root / folder, "folder of a split") for folder in split.videos)
    if file := next((folder for folder in folders if not folder.is_dir()), None):
        raise UserError(f"folder of a split {str(file)!r} is a file")
    return folders
