"""Files that replace others, and untrusted text in terminals."""

import os
import unicodedata

import pytest

from vidtl.runtime.files import LONGEST_LINE, printable, say, whole_file


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


@pytest.mark.parametrize("name", ["report.txt", "report.txt.{}.tmp"], ids=["itself", "temporary"])
def test_a_link_is_replaced_and_not_written_through(tmp_path, name):
    (tmp_path / "victim").write_text("mine")
    name = name.format(os.getpid())
    (tmp_path / name).symlink_to(tmp_path / "victim")
    with whole_file(tmp_path / "report.txt") as file:
        file.write("ours")
    assert [(tmp_path / each).read_text() for each in ("victim", "report.txt")] == ["mine", "ours"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.txt", "victim"]


def test_long_text_loses_its_middle():
    assert printable("Holding some clothes in the room number 17", 36) == "Holding some clothes in…m number 17"
    assert len(printable("x" * 5000, 300)) == 300


def test_lines_reach_a_terminal_whole_and_without_escapes(capsys):
    say("first \x1b[2J\nerror: forged", "x" * 10_000_000)
    first, second = capsys.readouterr().out.splitlines()
    assert first == r"first \x1b[2J\nerror: forged"
    assert len(second) == LONGEST_LINE
