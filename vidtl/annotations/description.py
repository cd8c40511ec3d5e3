"""`dataset.yaml`: layout and format of a data set, and reading of its `Records` from the root of a run.

The keys are documented in `datasets/README.md`. A data set needs this file in a folder, anywhere on disk, and no code.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vidtl.annotations.checks import check_keys
from vidtl.annotations.formats import READERS
from vidtl.annotations.formats.builder import RecordsBuilder
from vidtl.annotations.formats.source import AnnotationSource
from vidtl.annotations.keys import DatasetDescription, SplitDescription
from vidtl.annotations.layout import AnnotationPlaces, VideoFinder, check_inside
from vidtl.annotations.parts import choose_part
from vidtl.annotations.records import ClassNames, Records
from vidtl.annotations.text_files import ClassList, read_class_list
from vidtl.config.load import load
from vidtl.errors import UserError, did_you_mean, existing
from vidtl.video.suffixes import VIDEO_SUFFIXES

FILE_NAME = "dataset.yaml"

_VIDTL = Path(__file__).resolve().parents[1]
REPOSITORY_DATASETS = (_VIDTL if (_VIDTL / "datasets").is_dir() else _VIDTL.parent) / "datasets"

HELD_OUT = ("val", "valid", "validation", "test")  # folders of the split `val`, the first that exists
_NEEDED = "train/CLASS/... and val/CLASS/..., two folders of classes or more, or a dataset.yaml are needed"

_log = logging.getLogger(__name__)


def load_description(name_or_path: str, root: str | Path = "") -> DatasetDescription:
    """Read `dataset.yaml` of a folder, or of a data set by name under `./datasets` or the repository's `datasets`.

    Without a name, read that of the root; without a file there, describe the root's class folders.

    UserError if there is no such data set, or with the file, key and value if one is not allowed.
    """
    root = Path(root)
    with _access_needed(Path(name_or_path or root)):
        if not name_or_path and not (root / FILE_NAME).is_file():
            return describe_class_folders(root)
        folder = _find_folder(name_or_path) if name_or_path else root
        file = check_inside(folder / FILE_NAME, folder, "data set description")
        read = load(file, DatasetDescription)
    try:
        check_keys(read)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    name, fields = folder.resolve().name, read.fields or READERS[read.format].fields
    splits = {key: replace(split, value=split.value or key) for key, split in read.splits.items()}
    return replace(read, folder=folder, name=read.name or name, title=read.title or name, splits=splits, fields=fields)


def describe_class_folders(root: Path) -> DatasetDescription:
    """Describe `train/<class>/...` and `val/<class>/...` (see `HELD_OUT`), or `<class>/...` in random parts of 80 : 20.

    `test` beside another of `HELD_OUT` is a split of its own. Anything but `train` and `val` alone is logged.

    UserError if the root does not exist, or without `train`, has videos outside of folders or less than two folders.
    """
    if root.resolve() == Path(root.resolve().anchor):
        raise UserError(f"data.root is {str(root)!r}, the root of the file system; {_NEEDED}")
    entries = [each for each in os.scandir(existing(root, "data.root")) if each.name[0] != "."]
    folders = sorted(each.name for each in entries if each.is_dir())
    held_out = next((name for name in HELD_OUT if name in folders), "")
    if "train" in folders and (held_out or _has_folders(root / "train")):
        chosen = {"train": "train", "val": held_out}
        if held_out != "test" and "test" in folders and _has_folders(root / "test"):
            chosen["test"] = "test"
        splits = {split: SplitDescription(videos=(folder,)) for split, folder in chosen.items() if folder}
        if ignored := sorted({*folders} - {*chosen.values()}):
            _log.info("%s: %d folders beside train are not read, as %r", root, len(ignored), ignored[0])
        if held_out not in ("val", ""):
            _log.info("%s: no folder 'val'; %r is evaluated", root, held_out)
    else:
        if loose := sorted(each.name for each in entries if each.name.lower().endswith(VIDEO_SUFFIXES)):
            raise UserError(f"data.root {str(root)!r} has the video {loose[0]!r} outside of class folders; {_NEEDED}")
        if len(folders) < 2:
            found = f"nothing but the folder {folders[0]!r}" if folders else "no folders"
            raise UserError(f"data.root {str(root)!r} has {found}; {_NEEDED}")
        parts = {"train": (0.0, 0.8), "val": (0.8, 1.0)}
        splits = {split: SplitDescription(part=part) for split, part in parts.items()}
        _log.info("%s: %d class folders, of whose videos 20 %% are drawn for the split val", root, len(folders))
    name = root.resolve().name
    return DatasetDescription(
        folder=root, name=name, title=name, format="class_folders", labels="single", splits=splits
    )


def _has_folders(folder: Path) -> bool:
    return any(each.is_dir() for each in os.scandir(folder) if each.name[0] != ".")


def read_records(description: DatasetDescription, split: str, root: Path, follow_links: bool = True) -> Records:
    """Read the annotated videos of one split as `read_splits` does."""
    return read_splits(description, [split], root, follow_links)[split]


def read_splits(
    description: DatasetDescription,
    names: Sequence[str],
    root: Path,
    follow_links: bool = True,
    leave_out_unlabeled: bool = False,
    class_names: Sequence[str] | None = None,
) -> dict[str, Records]:
    """Read the annotated videos of splits, including those whose files are missing; each list is read once.

    With `leave_out_unlabeled`, splits without any labels, such as published test lists, are absent from the result.
    With `class_names`, labels may be missing, see `read_unlabeled`.

    UserError: root, annotation or class file missing or not readable; an invalid header, row, label, time or path.
    """
    with _access_needed(root):
        chosen = {name: description.split(name) for name in names}
        places = AnnotationPlaces(existing(root, "data.root"), description.folder, follow_links)
        files = description.classes.split(" + ") if description.classes else []
        lists = [read_class_list(places.find(file, "file of class names")[0]) for file in files]
        is_labeled = class_names is None
        needed = chosen if len(lists) == 1 or not is_labeled else description.splits
        builders = {name: _read_split(description, split, places, lists) for name, split in needed.items()}
        labels = set[str]().union(*(builder.label_names for builder in builders.values())) - {""}
        if leave_out_unlabeled:
            chosen = {name: split for name, split in chosen.items() if not builders[name].is_unlabeled}
        for name in chosen:
            builders[name].check(name, is_labeled)
        classes = lists[0].names if len(lists) == 1 else ClassNames(tuple(class_names or sorted(labels)))
        found: dict[str, Records] = {}
        for name, split in chosen.items():
            records = builders[name].build(classes, is_labeled)
            if split.part != (0.0, 1.0):
                records = choose_part(records, split.part, description.group, builders[name].groups(records))
            if (expected := description.expected.get(name, len(records))) != len(records):
                text = "%s lists %d videos, %s has %d"
                _log.warning(text, records.annotation, len(records), description.title, expected)
            found[name] = records
        return found


def read_unlabeled(
    description: DatasetDescription, split: str, root: Path, class_names: Sequence[str], follow_links: bool = True
) -> Records:
    """Read a split that may lack labels, for prediction; `class_names` count where the data set has no list of them."""
    return read_splits(description, [split], root, follow_links, class_names=class_names)[split]


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
    problem = f"neither a data set by name nor a folder with a {FILE_NAME}; {did_you_mean(name_or_path, names)}"
    raise UserError(f"data.dataset is {name_or_path!r}, {problem}")


def _read_split(
    description: DatasetDescription, split: SplitDescription, places: AnnotationPlaces, lists: Sequence[ClassList]
) -> RecordsBuilder:
    annotation_format = READERS[description.format]
    columns = {**annotation_format.columns, **description.columns}
    if annotation_format.annotation_files:
        annotations = [file for path in split.annotations for file in places.find(path)]
    else:
        annotations = [existing(places.root / folder, "folder of a split") for folder in split.videos]
    if description.group and "{" not in description.group:
        columns["group"] = description.group
    if description.files:
        columns["path"] = None
    source = AnnotationSource(
        root=places.root,
        annotations=tuple(dict.fromkeys(annotations)),
        dataset=description,
        split=split,
        columns=columns,
        finder=VideoFinder(places.root, split.videos, description.files, split.replacements),
        class_lists=tuple(lists),
    )
    return annotation_format.read(source)
