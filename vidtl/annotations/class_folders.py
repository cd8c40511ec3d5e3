"""Data sets without `dataset.yaml`: class folders in folders of splits, or in the root itself."""

import logging
import os
from pathlib import Path

from vidtl.annotations.keys import DatasetDescription, SplitDescription
from vidtl.errors import UserError, existing
from vidtl.video.suffixes import VIDEO_SUFFIXES

HELD_OUT = ("val", "valid", "validation", "test")
"""Folders of the split `val`, of which the first that exists is taken."""

_NEEDED = "train/CLASS/... and val/CLASS/..., two folders of classes or more, or a dataset.yaml are needed"

_log = logging.getLogger(__name__)


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
