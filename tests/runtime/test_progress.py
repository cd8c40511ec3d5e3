import io
import re
import sys

import pytest

from vidtl.runtime import progress as module
from vidtl.runtime.progress import Progress


def work(progress, total=100):
    with progress.task("training", "steps", total, 40) as task:
        for done in range(41, total + 1):
            task.update(done, {"loss": f"{done / 10:.1f}"})


def test_lines_are_few_and_the_last_one_is_complete(monkeypatch, capsys):
    monkeypatch.setattr(module.time, "monotonic", iter(x * 0.5 for x in range(10_000)).__next__)
    work(Progress())
    out, err = capsys.readouterr()
    shown = err.splitlines()
    assert out == ""
    assert 3 <= len(shown) <= 10
    assert re.match(r"training 41/100 steps, loss 4.1 +\S+ steps/s$", shown[0])
    assert shown[-1].startswith("training 100/100 steps, loss 10.0")
    assert re.search(r"left 00:\d\d$", shown[1])


def test_nothing_is_shown_twice(monkeypatch, capsys):
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    with Progress().task("evaluation", "videos", 2) as task:
        task.update(1)
        task.update(2)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["1/2", "2/2"]


def test_a_failing_run_keeps_its_error_and_other_processes_are_silent(capfd):
    with pytest.raises(KeyError), Progress().task("training", "steps", 5):
        raise KeyError("x")
    work(Progress(visible=False))
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_nested_tasks_and_disappears(monkeypatch):
    terminal, tqdm = io.StringIO(), module.tqdm
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "tqdm", lambda **options: tqdm(**options, mininterval=0, file=terminal))
    with Progress().task("training", "steps", 10) as outer:
        outer.update(3, {"loss": "2.31 [not markup]"})
        with Progress().task("evaluation", "videos", 7) as inner:
            inner.update(6)
        outer.update(10, {"loss": "2.10"})
    text = terminal.getvalue()
    for words in ("training", "evaluation", "6/7", "10/10", "loss 2.31 [not markup]", "loss 2.10"):
        assert words in text
    assert text.endswith("\r")
