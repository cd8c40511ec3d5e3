"""Files that replace others, and untrusted text in terminals."""

import errno
import os
import signal
import time
import unicodedata

import pytest

from tests.refusals import assert_refusal
from tests.stress.outcome import ending_of, in_child
from vidtl.runtime.files import LONGEST_LINE, new_directory, printable, replacing, say, whole_file
from vidtl.runtime.signals import run_tool


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


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "report.txt").symlink_to(tmp_path / "victim")
    with whole_file(tmp_path / "report.txt") as file:
        file.write("ours")
    assert [(tmp_path / each).read_text() for each in ("victim", "report.txt")] == ["mine", "ours"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.txt", "victim"]


def test_long_text_loses_its_middle():
    assert printable("Holding some clothes in the room number 17", 36) == "Holding some clothes in…m number 17"
    assert len(printable("x" * 5000, 300)) == 300


@pytest.mark.parametrize("make", [replacing, new_directory])
def test_the_next_writer_removes_what_killed_ones_left_and_nothing_else(tmp_path, make):
    def write():
        with make(tmp_path / "out") as temporary:
            (temporary.parent / "ready").touch()
            time.sleep(100)

    for name in ("out.7.tmp", "out.mine.tmp", "other.7.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    killed, living = in_child(write), in_child(write)
    try:
        folders = {pid: tmp_path / f"out.{pid}.tmp" for pid in (killed, living)}
        while not all((folder / "ready").exists() for folder in folders.values()):
            time.sleep(0.01)
        os.kill(killed, signal.SIGKILL)
        ending_of(killed)
        before = {*tmp_path.iterdir()}
        with make(tmp_path / "out") as temporary:
            temporary.touch() if make is replacing else None
        assert {*tmp_path.iterdir()} == (before | {tmp_path / "out"}) - {folders[killed]}
    finally:
        os.kill(living, signal.SIGKILL)
        ending_of(living)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EISDIR, errno.EACCES])
@pytest.mark.parametrize("follows", [False, True])
def test_errors_of_the_disk_end_a_tool_in_one_line(capsys, number, follows):
    def main():
        try:
            raise OSError(number, os.strerror(number), "summary.json")
        except OSError as error:
            if follows:
                raise RuntimeError("a library's own") from error
            raise

    is_told = not follows or number in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(SystemExit if is_told else RuntimeError) as ended:
        run_tool(main)
    if is_told:
        assert ended.value.code == 2
        assert_refusal(capsys.readouterr().err, "summary.json", os.strerror(number))


def test_lines_reach_a_terminal_whole_and_without_escapes(capsys):
    say("first \x1b[2J\nerror: forged", "x" * 10_000_000)
    first, second = capsys.readouterr().out.splitlines()
    assert first == r"first \x1b[2J\nerror: forged"
    assert len(second) == LONGEST_LINE
