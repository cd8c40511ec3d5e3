"""Text lists: paths with labels, and HMDB51's splits."""

import math
import re

from vidtl.annotations.formats.builder import RecordsBuilder, listed
from vidtl.annotations.formats.source import AnnotationSource, Row, is_number
from vidtl.annotations.layout import check_relative
from vidtl.errors import UserError
from vidtl.video.suffixes import VIDEO_SUFFIXES

_HMDB51_FILE = re.compile(r"(?P<label>.+)_test_split[123]\.txt")
_HMDB51_FLAGS = ("0", "1", "2")

_SPLIT_FOLDERS = frozenset(["train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"])

_Uses = dict[tuple[str, str | None], Row]  # first line of each folder with each class, None without a label


def read_path_list(source: AnnotationSource) -> RecordsBuilder:
    """Read a list without a header, a record per line `path label`, as in mmaction2, SlowFast, VideoMAE and UCF101.

        abseiling/0wR5jVB-WPk_000417_000427.mp4 0        mmaction2, VideoMAE, SlowFast
        abseiling/0wR5jVB-WPk_000417_000427.mp4,0        SlowFast with another separator
        some/folder 163 1                                mmaction2's folders of frames: `fields: [path, frames, label]`
        Archery/v_Archery_g08_c01.avi 3                  UCF101's trainlist01.txt, numbered from 1 as its classInd.txt
        Archery/v_Archery_g01_c01.avi                    UCF101's testlist01.txt: the folder is the class

    White space or a comma separates the fields. They are counted from the right, so that paths may contain spaces. A
    label is the number of a class in the list of classes, or its name. `offset` and `frames` select images of a folder.
    """
    builder = RecordsBuilder(source)
    separators: dict[int, str | None] = {}
    uses: _Uses = {}
    for row, text in source.lines():
        if row.file_number not in separators:  # a comma if a single word follows the last one, else white space
            before, comma, after = text.rpartition(",")
            separators[row.file_number] = "," if comma and before and len(after.split()) == 1 else None
        values, labels = _fields(source, row, text, separators[row.file_number])
        written = values["path"].strip()
        path = source.locate(written, row)
        segment, part = (0.0, math.inf), ""
        if "offset" in values:
            if path.lower().endswith(VIDEO_SUFFIXES):
                raise UserError(f"{row.where}: {path!r} is a video; `offset` counts the images of a folder")
            start, end = int(values["offset"]), int(values["offset"]) + int(values["frames"])
            segment, part = (source.frame_time(start), source.frame_time(end)), f"#frames={start},{end}"
        builder.add(row, path + part, path, segment)
        folder = written.replace("\\", "/").rpartition("/")[0]
        if not labels and not source.dataset.multi_label:
            uses.setdefault((folder, None), row)
            builder.label(row, f"{folder}/")  # until all folders are known
        for label in labels:
            if is_number(label) and not source.class_lists:
                raise UserError(f"{row.where}: the label is the number {label}; `classes` is needed in dataset.yaml")
            name = source.class_name(label, row)
            builder.label(row, name)
            if not source.dataset.multi_label:
                uses.setdefault((folder, source.dataset.aliases.get(name, name)), row)
    classes = _classes_of_folders(source, uses)
    builder.label_names = [classes.get(name, name) for name in builder.label_names]
    return builder


def _fields(source: AnnotationSource, row: Row, text: str, separator: str | None) -> tuple[dict[str, str], list[str]]:
    """Return fields and labels of a line; no label if it ends after the path."""
    known = source.dataset.fields
    if source.dataset.multi_label:
        parts = text.split(separator)
        values = dict(zip(known[:-1], parts, strict=False))
        labels = parts[len(known) - 1 :]
    else:
        parts = text.rsplit(separator, len(known) - 1)
        if len(parts) not in (1, len(known)):
            raise UserError(f"{row.where}: {text!r} has {len(parts)} fields; {' '.join(known)} are needed")
        values = dict(zip(known, parts, strict=False))
        labels = [values["label"]] if "label" in values else []
    for name in ("frames", "offset"):
        if not is_number(values.get(name, "0").strip()):
            raise UserError(f"{row.where}: {name} is {values[name]!r}; a whole number is needed")
    return values, [label.strip() for label in labels]


def _classes_of_folders(source: AnnotationSource, uses: _Uses) -> dict[str, str]:
    """Return the class of each folder, as `folder/`, whose lines have no label; UserError for contradicting labels."""
    depth = _class_depth(source, uses)
    classes: dict[str, str] = {}
    wrong: list[str] = []
    for (folder, name), row in uses.items():
        part = "" if depth is None else "".join(folder.split("/")[depth:][:1])
        of_folder = _class_of_folder(source, part)
        if name is None:
            if not part or (source.classes is None and part.lower() in _SPLIT_FOLDERS):
                source.lack_label(f"{row.where}: the line has no label, and no folder of its path stands for a class")
                part = ""
            classes[f"{folder}/"] = of_folder or source.dataset.aliases.get(part, part)
        elif of_folder not in (None, name):
            wrong.append(f"{row.where}: the label is that of {name!r}, but the folder is that of {of_folder!r}")
    if wrong:
        raise UserError(f"{listed(wrong)}; list of classes and annotation do not match, or these lines are wrong")
    return classes


def _class_depth(source: AnnotationSource, uses: _Uses) -> int | None:
    """Return the depth of the folders of classes: where most have a class's name, preferably that of the label.

    A single folder of several labels is none. Without a list of classes, it is the last one, if there are several.
    """
    if source.classes is None:
        return -1 if len({folder for folder, name in uses if name is None}) > 1 else None
    at_depth: dict[int, list[tuple[str, str | None, str | None]]] = {}
    for folder, name in uses:
        for depth, part in enumerate(folder.split("/")):
            at_depth.setdefault(depth, []).append((part, _class_of_folder(source, part), name))
    several = len({name for _, name in uses} - {None}) > 1
    ranks: list[tuple[int, int, int]] = []
    for depth, entries in at_depth.items():
        agree = [of_folder == name for _, of_folder, name in entries if of_folder]
        if 2 * len(agree) >= len(entries) and not (several and len({part for part, _, _ in entries}) == 1):
            ranks.append((sum(agree), len(agree), depth))
    return max(ranks)[-1] if ranks else None


def _class_of_folder(source: AnnotationSource, folder: str) -> str | None:
    """Return the class with the name of a folder, with spaces or underscores; none for folders of splits."""
    name = source.dataset.aliases.get(folder, folder)
    spellings = () if folder.lower() in _SPLIT_FOLDERS else (name, name.replace("_", " "))
    return next((each for each in spellings if source.classes and each in source.classes), None)


def read_hmdb51_splits(source: AnnotationSource) -> RecordsBuilder:
    """Read HMDB51's official splits: a file per class, `brush_hair_test_split1.txt`, of lines `<video>.avi <flag>`.

    The flag is 1 (training), 2 (test) or 0; lines with the split's `value` count. `{id}` is the name without suffix.
    """
    if source.split.value not in _HMDB51_FLAGS:
        raise UserError(f"the split's value is {source.split.value!r}; allowed: 1 (training), 2 (test), 0 (left out)")
    builder = RecordsBuilder(source)
    for row, text in source.lines():
        parsed = _HMDB51_FILE.fullmatch(row.file.name)
        if parsed is None:
            raise UserError(f"{row.file}: a name like 'brush_hair_test_split1.txt' is needed, with the class")
        name, _, flag = text.rpartition(" ")
        if flag not in _HMDB51_FLAGS:
            raise UserError(f"{row.where}: {text!r} does not end with 1 (training), 2 (test) or 0 (left out)")
        name = check_relative(name.strip(), row.where)
        if flag == source.split.value:
            stem, dot, suffix = name.rpartition(".")
            fields = {"label": parsed["label"], "id": stem if dot + suffix.lower() in VIDEO_SUFFIXES else name}
            builder.add(row, f"{parsed['label']}/{fields['id']}", source.finder.find(fields))
            builder.label(row, parsed["label"])
    pattern = source.finder.expected_pattern()
    builder.complete(lambda name, label: pattern.format(label=label, id=name.partition("/")[2]))
    return builder
