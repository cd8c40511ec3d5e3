"""Lists without a header, a video per line: `path label`, as in mmaction2, SlowFast, VideoMAE and UCF101.

    abseiling/0wR5jVB-WPk_000417_000427.mp4 0        mmaction2, VideoMAE, SlowFast
    abseiling/0wR5jVB-WPk_000417_000427.mp4,0        SlowFast with another separator
    some/folder 163 1                                mmaction2's folders of frames: `fields: [path, frames, label]`
    Archery/v_Archery_g08_c01.avi 3                  UCF101's trainlist01.txt, numbered from 1 as its classInd.txt is
    Archery/v_Archery_g01_c01.avi                    UCF101's testlist01.txt: the folder is the class

White space or a comma separates the fields. They are counted from the right, so that paths may contain spaces.
"""

from collections.abc import Sequence

from vidtl.annotations.formats.source import AnnotationSource, Columns, RecordsBuilder, Row
from vidtl.annotations.formats.text_files import text_lines
from vidtl.annotations.records import ClassNames
from vidtl.errors import UserError, did_you_mean

COLUMNS: Columns = {}
FIELDS = ("path", "label", "frames", "other")
"""Allowed `fields` in dataset.yaml; the count `frames` is not used, since the folder has it as well."""


def read_path_list(source: AnnotationSource) -> RecordsBuilder:
    """Read a record per line. A label is the number of a class in the list of classes, or its name."""
    builder = RecordsBuilder(source)
    for number, file in enumerate(source.annotations):
        separator = ""
        for line, text in text_lines(file):
            row = Row(file, number, line, {})
            if not separator:
                separator = _separator(text)
            path, labels = _fields(source, row, text, separator)
            path = source.locate(path, row.where)
            builder.add(row, path, path)
            for name in _names(source, row, path, labels):
                builder.label(row, name)
    return builder


def _separator(text: str) -> str:
    """Return a comma if a single word follows the last one, else white space."""
    before, comma, after = text.rpartition(",")
    return "," if comma and before and len(after.split()) == 1 else " "


def _fields(source: AnnotationSource, row: Row, text: str, separator: str) -> tuple[str, list[str]]:
    """Return path and labels of a line; no label if it ends after the path."""
    known = source.fields
    split_at = separator.strip() or None  # None: any white space
    if source.multi_label:
        parts = text.split(split_at)
        values = dict(zip(known[:-1], parts, strict=False))
        labels = parts[len(known) - 1 :]
    else:
        parts = text.rsplit(split_at, len(known) - 1)
        if len(parts) not in (1, len(known)):
            raise UserError(f"{row.where}: {text!r} has {len(parts)} fields; {' '.join(known)} are needed")
        values = dict(zip(known, parts, strict=False))
        labels = [values["label"]] if "label" in values else []
    frames = values.get("frames", "0").strip()
    if not frames.isdecimal():
        raise UserError(f"{row.where}: the number of frames is {frames!r}; a whole number is needed")
    return values["path"].strip(), [label.strip() for label in labels]


def _names(source: AnnotationSource, row: Row, path: str, labels: Sequence[str]) -> list[str]:
    folder = path.rpartition("/")[0].rpartition("/")[2]
    if not labels and not source.multi_label:
        return [_class_of_folder(source.classes, folder) or folder]
    names = [source.class_name(label, row.where) for label in labels]
    of_folder = source.classes and _class_of_folder(source.classes, source.aliases.get(folder, folder))
    if of_folder and not source.multi_label and source.aliases.get(names[0], names[0]) != of_folder:
        raise UserError(
            f"{row.where}: the label {labels[0]!r} is {names[0]!r}, but the folder is that of {of_folder!r}; "
            "the list of classes has another order than the annotation"
        )
    return names


def _class_of_folder(classes: ClassNames | None, folder: str) -> str | None:
    """Return the class with the name of a folder, with spaces or underscores."""
    spellings = (folder, folder.replace("_", " "))
    return next((name for name in spellings if classes and name in classes), None)


def check_fields(fields: Sequence[str], where: str, multi_label: bool) -> tuple[str, ...]:
    """Return the fields of a list, or raise a UserError: path first, a label, and at most one of each.

    In a multi-label list, the label is last, because several labels follow the other fields.
    """
    for name in fields:
        if name not in FIELDS:
            raise UserError(f"{where} has {name!r}; {did_you_mean(name, FIELDS)}")
        if name != "other" and fields.count(name) > 1:
            raise UserError(f"{where} has {name!r} twice; once is allowed")
    if not fields or fields[0] != "path":
        raise UserError(f"{where} is {list(fields)}; 'path' is needed first")
    if "label" not in fields:
        raise UserError(f"{where} is {list(fields)}; 'label' is needed")
    if multi_label and fields[-1] != "label":
        raise UserError(f"{where} is {list(fields)}; with `labels: multi`, 'label' is needed last")
    return tuple(fields)
