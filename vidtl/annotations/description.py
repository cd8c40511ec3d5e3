"""`dataset.yaml`: layout and format of a data set, and reading of its `Records` from the root of a run.

The keys are documented in `datasets/README.md`. A data set needs this file in a folder, anywhere on disk, and no code.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidtl.annotations.class_list import ClassList, read_class_list
from vidtl.annotations.description_file import FILE_NAME, DatasetDescription, SplitDescription, parse_description
from vidtl.annotations.formats import READERS, AnnotationFormat
from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder
from vidtl.annotations.formats.text_files import lacks_column
from vidtl.annotations.layout import VideoFinder, existing, find_annotations
from vidtl.annotations.records import ClassNames, Records
from vidtl.errors import UserError, did_you_mean

_VIDTL = Path(__file__).resolve().parents[1]
REPOSITORY_DATASETS = (_VIDTL if (_VIDTL / "datasets").is_dir() else _VIDTL.parent) / "datasets"

_log = logging.getLogger(__name__)


def load_description(name_or_path: str) -> DatasetDescription:
    """Read `dataset.yaml` of a folder, or of a data set by name under `./datasets` or the repository's `datasets`.

    Raises:
        UserError: no such data set, or the file has an unknown key or an impossible value.
    """
    with _access_needed(Path(name_or_path)):
        return parse_description(_find_folder(name_or_path))


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
