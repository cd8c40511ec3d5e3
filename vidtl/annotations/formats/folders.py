"""Data sets without annotation files: a folder per class, labels in file names, and CIFAR-10."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from vidtl.annotations.formats.builder import RecordsBuilder
from vidtl.annotations.formats.source import AnnotationSource, Row
from vidtl.annotations.layout import check_inside, join, pattern_expression
from vidtl.annotations.text_files import read_class_list
from vidtl.annotations.walk import VideoWalk
from vidtl.errors import UserError
from vidtl.video.packed import PackedImages, open_packed, read_pickle
from vidtl.video.reader import UnreadableVideo

_CIFAR_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}

_log = logging.getLogger(__name__)


def read_class_folders(source: AnnotationSource) -> RecordsBuilder:
    """Read `<split>/<class>/.../<video>`, the class being the first folder, in the order of the names.

    Images in the class folder itself are one video each; below it, see `VideoWalk`. What is not read is counted in a
    warning, and so are class folders without videos.
    """
    names: set[str] = set()
    for folder in source.annotations:
        inside = {each.name for each in os.scandir(folder) if os.path.isdir(each.path) and each.name[0] != "."}
        if not inside:
            raise UserError(f"{folder}: no folders in it; one for each class is needed")
        names |= inside

    def fields(name: str, _: str) -> dict[str, str] | None:
        label, slash, _ = name.partition("/")
        return {"label": label} if slash else None

    builder = _read_walk(source, lambda place: "/" not in place, fields)
    if empty := sorted(name for name in names if source.dataset.aliases.get(name, name) not in builder.label_names):
        _log.warning("%s: %d class folders without videos, as %s", source.annotations[0], len(empty), empty[0])
    return builder


def read_file_names(source: AnnotationSource) -> RecordsBuilder:
    """Read labels from paths by the patterns of `files`, such as `person{group}_{label}_d{other}.avi` of KTH."""
    expressions = [pattern_expression(pattern) for pattern in source.finder.patterns]

    def fields(_: str, path: str) -> dict[str, str] | None:
        return next((match.groupdict() for each in expressions if (match := each.fullmatch(path))), None)

    return _read_walk(source, lambda _: False, fields)


def _read_walk(
    source: AnnotationSource, is_single: Callable[[str], bool], fields: Callable[[str, str], dict[str, str] | None]
) -> RecordsBuilder:
    """Read the videos of the split's folders; `fields` returns the label of a name and a path, or None without one."""
    builder = RecordsBuilder(source)
    for number, folder in enumerate(source.annotations):
        base, walk = folder.relative_to(source.root).as_posix(), VideoWalk(folder, source.root, is_single)
        for name, _ in sorted(walk, key=lambda each: each[0].split("/")):
            path = join(base, name)
            values = fields(name, path)
            if values is None:
                walk.ignored.append(name)
                continue
            row = Row(folder, number, 0, values)
            builder.add(row, path, path)
            builder.label(row, values["label"])
        if lost := walk.ignored:
            _log.warning("%s: %d files or links are no videos with a label, as %s", folder, len(lost), lost[0])
    return builder


def read_cifar10(source: AnnotationSource) -> RecordsBuilder:
    """Read CIFAR-10 as torchvision stores it, in its binary version, or in an `.npz` archive."""
    part = source.split.value
    if part not in _CIFAR_BATCHES:
        raise UserError(f"the split's value is {part!r}; CIFAR-10 has 'train' and 'test'")
    builder = RecordsBuilder(source)
    try:
        for number, folder in enumerate(source.annotations):
            for file, name, images, classes in _cifar_files(folder, part, source.root):
                path = (file / name).relative_to(source.root).as_posix()
                row = Row(folder, number, 0)
                for index, label in enumerate(images.labels.tolist()):
                    if not 0 <= label < len(classes):
                        last = len(classes) - 1
                        raise UserError(f"{file}: image {index} has the label {label}; classes are 0 to {last}")
                    builder.add(row, f"{path}/{index}", f"{path}/{index}")
                    builder.label(row, classes[label])
    except UnreadableVideo as error:
        raise UserError(str(error)) from None
    return builder


def _cifar_files(folder: Path, part: str, root: Path) -> list[tuple[Path, str, PackedImages, tuple[str, ...]]]:
    """Return every file of a part, the part's name inside it, its images, and the class names."""
    for form, suffix in (("cifar-10-batches-py", ""), ("cifar-10-batches-bin", ".bin")):
        batches = folder / form
        if batches.is_dir():
            meta = check_inside(batches / f"batches.meta{suffix and '.txt'}", root, "list of classes")
            names = read_class_list(meta).names.names if suffix else read_pickle(meta).get("label_names", [])
            classes = tuple(name.decode("latin-1") if isinstance(name, bytes) else str(name) for name in names)
            files = [check_inside(batches / f"{name}{suffix}", root, "CIFAR-10 batch") for name in _CIFAR_BATCHES[part]]
            return [(file, "", open_packed(file), classes) for file in files]
    archives = sorted(folder.glob("*.npz"))
    if len(archives) != 1:
        found = f"{len(archives)} .npz files" if archives else "nothing of CIFAR-10"
        raise UserError(f"{folder} has {found}; 'cifar-10-batches-py', 'cifar-10-batches-bin' or one .npz is needed")
    images = open_packed(check_inside(archives[0], root, "archive"), part)
    if not images.classes:
        raise UserError(f"{archives[0]}: no array 'classes' with the names of the classes")
    return [(archives[0], part, images, images.classes)]
