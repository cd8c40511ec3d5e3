"""Substituted clips are counted by class and by path, reported once an epoch, and resumed."""

import json
import logging
from types import SimpleNamespace

import pytest

from vidtl.data.batch import Failure
from vidtl.training.monitor import UnreadableVideos
from vidtl.training.state import TrainingState

COUNTS = {"steps_per_epoch": 3, "clips_of_classes": lambda steps: {"jump": 10 * steps, "run": 20 * steps}}


@pytest.fixture
def start(tmp_path, accelerator):
    def start(resumed_step=0):
        file = tmp_path / "unreadable.jsonl"
        videos = UnreadableVideos(
            file, accelerator, SimpleNamespace(**COUNTS), max_share=0.9, repeats=2, resumed_step=resumed_step
        )
        return videos, TrainingState(step=resumed_step)

    return start


def take(videos, state, *failures):
    state.step += 1
    videos.add(state, 8, len(failures), failures)


def test_failures_are_counted_by_path_and_class(start, caplog):
    caplog.set_level(logging.WARNING, logger="vidtl")
    videos, state = start()
    take(videos, state)
    assert not videos.file.exists()
    take(videos, state, Failure(0, "a.mp4", "cut short", ("jump",)), Failure(4, "b.mp4", "empty", ("jump",), 1))
    assert [record.args for record in caplog.records] == [("a.mp4", "jump", "cut short"), ("b.mp4", "jump", "empty")]
    caplog.clear()
    take(videos, state, Failure(7, "c.mp4", "empty", ("jump", "run")))
    assert [record.args for record in caplog.records][1:] == [("jump", 4, 30), ("run", 2, 60)]
    caplog.clear()
    for _ in range(3):
        take(videos, state)
    assert not caplog.records  # nothing new in the second epoch
    assert videos.by_path == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1}
    assert videos.by_class(state.step) == {"jump": (4, 60), "run": (2, 120)}
    # Videos are counted, not clips: 4 in each of 6 steps, and the attempts that failed.
    assert (state.videos_asked, state.videos_unreadable) == (27, 3)
    lines = [json.loads(line) for line in videos.file.read_text().splitlines()]
    assert lines[2] == {"step": 3, "path": "c.mp4", "reason": "empty", "classes": ["jump", "run"], "attempt": 0}


def test_a_resumed_run_continues_the_counts(start):
    first, state = start()
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")  # not UTF-8
    for _ in range(2):  # the second is lost: the run resumes from step 1
        take(first, state, Failure(0, name, "cut short", ("jump",)))
    second, state = start(resumed_step=1)
    assert second.by_path == {name: 1}
    take(second, state, Failure(3, "c.mp4", "empty", ("run",)))
    assert second.by_class(3) == {"jump": (2, 30), "run": (2, 60)}
