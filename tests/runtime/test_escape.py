"""Strangers' names are inert wherever they are shown, and nothing of them is lost."""

import csv
import io
import unicodedata

import pytest

from vidtl.runtime.escape import cell_text, labels_cell, original_labels, original_text, shown_text

HOSTILE = [
    "=1+1",
    '@SUM(A1),"quoted"',
    "-2",
    "+3|x",
    "a\r\nb\x00\x1b[31m\u2028\x85",
    "  =HYPERLINK(1)",
    "\t=1",
    "'apostrophe",
    "''",
    "'",
    "$\\frac{",
    "C:\\new\\x1b\\u202e",
    "\\",
    "\\|",
    "|",
    "＝1",
    "video\u202e4pm.exe",
    "\ufeffbyte order mark",
    "tag\U000e0041",
    "lone \udcff surrogate",
    "<script>alert(1)</script>, straße, 跑 e\u0301 👩\u200d🚒",
    "",
    "plain name",
]


def is_inert(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") and c not in "\u202e\u2066" for c in text)


@pytest.mark.parametrize("text", HOSTILE)
def test_cells_are_inert_and_can_be_undone(text):
    cell = cell_text(text)
    assert is_inert(cell)
    assert cell.lstrip()[:1] not in tuple("=+-@＝＋－＠")
    assert original_text(cell) == text
    written = io.StringIO()
    csv.writer(written).writerow([cell])
    assert next(csv.reader(io.StringIO(written.getvalue()), strict=True)) == [cell]
    assert is_inert(shown_text(text))


def test_names_in_one_cell_can_be_told_apart():
    for names in ([], ["a"], ["a", "b"], HOSTILE[:21], ["|", "\\", "\\|", "|\\"], ["'", "x"], ["x", "=1"], ["=1", "x"]):
        cell = labels_cell(names)
        assert is_inert(cell)
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
        assert original_labels(cell) == names


def test_ordinary_names_are_left_as_they_are():
    for name in ("plain name", "straße, 跑 e\u0301 👩\u200d🚒", "c000 Holding some clothes"):
        assert cell_text(name) == shown_text(name) == name
    assert shown_text("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"
