"""Data sets without annotation files: a folder per class, labels in file names, and CIFAR-10."""

import logging
import os
from pathlib import Path

from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder, Row
from vidtl.annotations.layout import existing, join, pattern_expression
from vidtl.annotations.video_files import find_videos
from vidtl.errors import UserError
from vidtl.video.packed import PackedImages, open_packed, read_pickle
from vidtl.video.reader import UnreadableVideo
from vidtl.video.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_CIFAR_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}

_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)

_log = logging.getLogger(__name__)


def read_class_folders(source: AnnotationSource) -> RecordsBuilder:
    """Read `<split>/<class>/<video>`: videos, images, or folders of numbered images, in the order of their names.

    Hidden files are ignored; other files are counted in a warning.
    """
    builder = RecordsBuilder(source)
    for number, folder in enumerate(source.annotations):
        others: list[Path] = []
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
        if not names:
            raise UserError(f"{folder}: no folders in it; one for each class is needed")
        base, row = folder.relative_to(source.root).as_posix(), Row(folder, number, 0)
        for name in names:
            for entry in sorted(os.scandir(folder / name), key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if not entry.name.lower().endswith(_SUFFIXES) and not entry.is_dir():
                    others.append(Path(entry.path))
                    continue
                path = join(base, f"{name}/{entry.name}")
                builder.add(row, path, path)
                builder.label(row, name)
        if others:
            _log.warning("%s: %d files are neither videos nor images, as %s", folder, len(others), others[0])
    return builder


def read_file_names(source: AnnotationSource) -> RecordsBuilder:
    """Read labels from paths by the patterns of `files`, such as `person{group}_{label}_d{other}.avi` of KTH.

    Files that no pattern matches are counted in a warning.
    """
    builder = RecordsBuilder(source)
    expressions = [pattern_expression(pattern) for pattern in source.finder.patterns]
    for number, folder in enumerate(source.annotations):
        found = find_videos([folder])
        others = found.ignored
        for video in found.videos:
            path = video.path.relative_to(source.root).as_posix()
            fields = next((match.groupdict() for each in expressions if (match := each.fullmatch(path))), None)
            if fields is None:
                others.append(video.path)
                continue
            row = Row(folder, number, 0, fields)
            builder.add(row, path, path)
            builder.label(row, fields["label"])
        if others:
            _log.warning("%s: %d files do not match `files`, such as %s", folder, len(others), others[0])
    return builder


def read_cifar10(source: AnnotationSource) -> RecordsBuilder:
    """Read CIFAR-10 as torchvision stores it, in its binary version, or in an `.npz` archive."""
    part = source.split_value
    if part not in _CIFAR_BATCHES:
        raise UserError(f"the split's value is {part!r}; CIFAR-10 has 'train' and 'test'")
    builder = RecordsBuilder(source)
    try:
        for number, folder in enumerate(source.annotations):
            for file, name, images, classes in _cifar_files(folder, part):
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


def _cifar_files(folder: Path, part: str) -> list[tuple[Path, str, PackedImages, tuple[str, ...]]]:
    """Return every file of a part, the part's name inside it, its images, and the class names."""
    for form, suffix in (("cifar-10-batches-py", ""), ("cifar-10-batches-bin", ".bin")):
        batches = folder / form
        if batches.is_dir():
            classes = _cifar_classes(batches, suffix)
            files = [existing(batches / f"{name}{suffix}", "CIFAR-10 batch") for name in _CIFAR_BATCHES[part]]
            return [(file, "", open_packed(file.resolve()), classes) for file in files]
    archives = sorted(folder.glob("*.npz"))
    if len(archives) != 1:
        found = f"{len(archives)} .npz files" if archives else "nothing of CIFAR-10"
        raise UserError(f"{folder} has {found}; 'cifar-10-batches-py', 'cifar-10-batches-bin' or one .npz is needed")
    images = open_packed(archives[0].resolve(), part)
    if not images.classes:
        raise UserError(f"{archives[0]}: no array 'classes' with the names of the classes")
    return [(archives[0], part, images, images.classes)]


def _cifar_classes(batches: Path, suffix: str) -> tuple[str, ...]:
    if suffix:
        return tuple(existing(batches / "batches.meta.txt", "list of classes").read_text().split())
    names = read_pickle(existing(batches / "batches.meta", "list of classes")).get("label_names", [])
    return tuple(name.decode("latin-1") if isinstance(name, bytes) else str(name) for name in names)
