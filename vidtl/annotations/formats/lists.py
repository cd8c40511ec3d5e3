"""Text lists: paths with labels, and HMDB51's splits."""

import re
from collections.abc import Sequence

from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder, Row
from vidtl.annotations.layout import check_relative
from vidtl.annotations.records import ClassNames
from vidtl.errors import UserError
from vidtl.video.suffixes import VIDEO_SUFFIXES

_HMDB51_FILE = re.compile(r"(?P<label>.+)_test_split[123]\.txt")
_HMDB51_FLAGS = ("0", "1", "2")


def read_path_list(source: AnnotationSource) -> RecordsBuilder:
    """Read a list without a header, a record per line `path label`, as in mmaction2, SlowFast, VideoMAE and UCF101.

        abseiling/0wR5jVB-WPk_000417_000427.mp4 0        mmaction2, VideoMAE, SlowFast
        abseiling/0wR5jVB-WPk_000417_000427.mp4,0        SlowFast with another separator
        some/folder 163 1                                mmaction2's folders of frames: `fields: [path, frames, label]`
        Archery/v_Archery_g08_c01.avi 3                  UCF101's trainlist01.txt, numbered from 1 as its classInd.txt
        Archery/v_Archery_g01_c01.avi                    UCF101's testlist01.txt: the folder is the class

    White space or a comma separates the fields. They are counted from the right, so that paths may contain spaces. A
    label is the number of a class in the list of classes, or its name.
    """
    builder = RecordsBuilder(source)
    separators: dict[int, str | None] = {}
    for row, text in source.lines():
        if row.file_number not in separators:
            separators[row.file_number] = _separator(text)
        path, labels = _fields(source, row, text, separators[row.file_number])
        path = source.locate(path, row.where)
        builder.add(row, path, path)
        for name in _names(source, row, path, labels):
            builder.label(row, name)
    return builder


def _separator(text: str) -> str | None:
    """Return a comma if a single word follows the last one, else None for white space."""
    before, comma, after = text.rpartition(",")
    return "," if comma and before and len(after.split()) == 1 else None


def _fields(source: AnnotationSource, row: Row, text: str, separator: str | None) -> tuple[str, list[str]]:
    """Return path and labels of a line; no label if it ends after the path."""
    known = source.fields
    if source.multi_label:
        parts = text.split(separator)
        values = dict(zip(known[:-1], parts, strict=False))
        labels = parts[len(known) - 1 :]
    else:
        parts = text.rsplit(separator, len(known) - 1)
        if len(parts) not in (1, len(known)):
            raise UserError(f"{row.where}: {text!r} has {len(parts)} fields; {' '.join(known)} are needed")
        values = dict(zip(known, parts, strict=False))
        labels = [values["label"]] if "label" in values else []
    frames = values.get("frames", "0").strip()  # checked only: the folder has the frames
    if not frames.isdecimal():
        raise UserError(f"{row.where}: the number of frames is {frames!r}; a whole number is needed")
    return values["path"].strip(), [label.strip() for label in labels]


def _names(source: AnnotationSource, row: Row, path: str, labels: Sequence[str]) -> list[str]:
    folder = path.rpartition("/")[0].rpartition("/")[2]
    if not labels and not source.multi_label:
        return [_class_of_folder(source.classes, folder) or (folder if source.labeled else "")]
    names = [source.class_name(label, row.where) for label in labels]
    of_folder = _class_of_folder(source.classes, source.aliases.get(folder, folder))
    if of_folder and not source.multi_label and source.aliases.get(names[0], names[0]) != of_folder:
        reason = f"but the folder is that of {of_folder!r}; the list of classes and the annotation differ in order"
        raise UserError(f"{row.where}: the label {labels[0]!r} is {names[0]!r}, {reason}")
    return names


def _class_of_folder(classes: ClassNames | None, folder: str) -> str | None:
    """Return the class with the name of a folder, with spaces or underscores."""
    spellings = (folder, folder.replace("_", " "))
    return next((name for name in spellings if classes and name in classes), None)


def read_hmdb51_splits(source: AnnotationSource) -> RecordsBuilder:
    """Read HMDB51's official splits: a file per class, `brush_hair_test_split1.txt`, of lines `<video>.avi <flag>`.

    The flag is 1 for training, 2 for test and 0 for neither; lines with the split's `value` give records. `{id}` is the
    name without its suffix.
    """
    if source.split_value not in _HMDB51_FLAGS:
        raise UserError(f"the split's value is {source.split_value!r}; allowed: 1 (training), 2 (test), 0 (left out)")
    builder = RecordsBuilder(source)
    for row, text in source.lines():
        parsed = _HMDB51_FILE.fullmatch(row.file.name)
        if parsed is None:
            raise UserError(f"{row.file}: a name like 'brush_hair_test_split1.txt' is needed, with the class")
        name, _, flag = text.rpartition(" ")
        if flag not in _HMDB51_FLAGS:
            raise UserError(f"{row.where}: {text!r} does not end with 1 (training), 2 (test) or 0 (left out)")
        name = check_relative(name.strip(), row.where)
        if flag == source.split_value:
            stem, dot, suffix = name.rpartition(".")
            fields = {"label": parsed["label"], "id": stem if dot + suffix.lower() in VIDEO_SUFFIXES else name}
            builder.add_found(row, f"{parsed['label']}/{fields['id']}", fields)
            builder.label(row, parsed["label"])
    pattern = source.finder.expected_pattern()
    builder.complete(lambda name, label: pattern.format(label=label, id=name.partition("/")[2]))
    return builder
