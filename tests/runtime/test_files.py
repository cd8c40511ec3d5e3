"""Untrusted text in terminals."""

import unicodedata

import pytest

from vidtl.runtime.files import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\x00\x1b[31m\u2028\x85", r"a\r\nb\x00\x1b[31m\u2028\x85"),
        ("video\u202e4pm.exe", r"video\u202e4pm.exe"),
        ("\ufefftag\U000e0041 lone \udcff", r"\ufefftag\U000e0041 lone \udcff"),
        ("straße, 跑 e\u0301, می\u200cخواهم 👩\u200d🚒", "straße, 跑 e\u0301, می\u200cخواهم 👩\u200d🚒"),
        ("", ""),
    ],
)
def test_printable_text_moves_no_cursor_and_ordinary_text_stays(text, shown):
    assert printable(text) == shown
    assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in printable(text))


def test_long_text_loses_its_middle():
    assert printable("Holding some clothes in the room number 17", 36) == "Holding some clothes in…m number 17"
    assert len(printable("x" * 5000, 300)) == 300
