"""HMDB51's official splits: a file per class, `brush_hair_test_split1.txt`, of lines `<video>.avi <0, 1 or 2>`.

1 is training, 2 is test and 0 is in neither; there are three splits.
"""

import re

from vidtl.annotations.formats.source import AnnotationSource, Columns, RecordsBuilder, Row
from vidtl.annotations.formats.text_files import text_lines
from vidtl.annotations.layout import VIDEO_SUFFIXES, check_relative
from vidtl.errors import UserError

COLUMNS: Columns = {}
PATTERN_FIELDS = frozenset({"id", "label"})

_FILE = re.compile(r"(?P<label>.+)_test_split[123]\.txt")
_FLAGS = ("0", "1", "2")


def read_hmdb51_splits(source: AnnotationSource) -> RecordsBuilder:
    """Read a record per line whose flag is the split's `value`; `{id}` is the name without its suffix."""
    if source.split_value not in _FLAGS:
        raise UserError(f"the split's value is {source.split_value!r}; allowed: 1 (training), 2 (test), 0 (left out)")
    builder = RecordsBuilder(source)
    for number, file in enumerate(source.annotations):
        parsed = _FILE.fullmatch(file.name)
        if parsed is None:
            raise UserError(f"{file}: a name like 'brush_hair_test_split1.txt' is needed, with the class")
        for line, text in text_lines(file):
            row = Row(file, number, line, {})
            name, _, flag = text.rpartition(" ")
            if flag not in _FLAGS:
                raise UserError(f"{row.where}: {text!r} does not end with 1 (training), 2 (test) or 0 (left out)")
            name = check_relative(name.strip(), row.where)
            if flag == source.split_value:
                stem, dot, suffix = name.rpartition(".")
                fields = {"label": parsed["label"], "id": stem if dot + suffix.lower() in VIDEO_SUFFIXES else name}
                builder.add(row, f"{parsed['label']}/{fields['id']}", source.finder.find(fields))
                builder.label(row, parsed["label"])
    pattern = source.finder.expected_pattern()
    builder.complete(lambda name, label: pattern.format(label=label, id=name.partition("/")[2]))
    return builder
