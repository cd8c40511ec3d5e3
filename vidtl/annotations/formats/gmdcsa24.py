"""GMDCSA24's CSV files: `ADL.csv` and `Fall.csv` in a folder per subject, with videos in folders of the same names.

The column `Classes` holds activities with their times, `Sitting[0 to 0.5; 3.7 to 10]; Walking[0.5 to 3.1]`. It was
typed by hand, and all unambiguous errors are accepted: a missing `]`, a missing `to`, a stray `:`, no times at all,
ends before starts. `aliases` in `dataset.yaml` unifies spellings.
"""

import math
import re
from collections.abc import Iterator

from vidtl.annotations.formats.source import AnnotationSource, RecordsBuilder
from vidtl.annotations.layout import check_relative, join
from vidtl.errors import UserError

COLUMNS: dict[str, str | None] = {"file": "File Name", "classes": "Classes"}

_NUMBER = r"(\d+(?:\.\d*)?)"
_SPAN = rf"\s*{_NUMBER}(?:\s*to\s*|\s+){_NUMBER}\s*"
_TIMES = re.compile(_SPAN)
_ACTIVITY = re.compile(
    r"\s*([A-Za-z]+(?:\s*\([A-Za-z]*\)?)?)\s*"  # Falling (BW), or without the closing bracket
    rf"(?:\[({_SPAN}(?:;{_SPAN})*)(?:;|\]))?"  # [0 to 0.5; 3.7 to 10], or closed by the next activity's semicolon
    r"(?:(?<=;)|[\s:]*(?:;|$))[\s:;]*"
)


def read_gmdcsa24(source: AnnotationSource) -> RecordsBuilder:
    """Read one record per row, with the id `<subject's folder>/<Fall or ADL>/<file's stem>`.

    Times are not clipped to the column `Length (seconds)`, which is rounded and wrong in places (70 for 7).
    """
    builder = RecordsBuilder(source)
    for row in source.rows():
        name = check_relative(row.values["file"], f"{row.where}: {source.columns['file']}")
        folder = row.file.relative_to(source.root).with_suffix("").as_posix()
        path = join(folder, name)
        builder.add(row, path.rpartition(".")[0] or path, path)
        for activity, start, end in parse_activities(
            row.values["classes"], f"{row.where}: {source.columns['classes']}"
        ):
            builder.label(row, activity, start, end)
    return builder


def parse_activities(text: str, where: str) -> Iterator[tuple[str, float, float]]:
    """Yield name, start and end of every activity, in seconds; -inf and inf without times.

    Raises:
        UserError: part of the text is neither a name nor times.
    """
    position = 0
    while position < len(text.rstrip("; ")):
        parsed = _ACTIVITY.match(text, position)
        if parsed is None:
            raise UserError(f"{where} has {text[position:]!r}; 'Name[start to end; ...]; ...' is needed")
        position = parsed.end()
        name = " ".join(parsed[1].split())
        if parsed[2] is None:
            yield name, -math.inf, math.inf
        for span in _TIMES.finditer(parsed[2] or ""):
            start, end = float(span[1]), float(span[2])
            yield name, start, max(start, end)
