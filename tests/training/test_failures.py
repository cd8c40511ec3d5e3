"""Replaced clips are counted by class and by path, reported once an epoch, and resumed."""

import json
import logging
from pathlib import Path

import pytest
from accelerate import Accelerator

from vidtl.data.batch import Failure
from vidtl.training.monitor import ReplacedClips, UnreadableVideos
from vidtl.training.state import TrainingState


class Loader:
    steps_per_epoch = 3

    def clips_of_classes(self, steps: int) -> dict[str, int]:
        return {"jump": 10 * steps, "run": 20 * steps}


def unreadable(folder: Path, accelerator: Accelerator, resumed_step: int = 0) -> UnreadableVideos:
    return UnreadableVideos(folder / "unreadable.jsonl", accelerator, Loader(), 0.9, 2, resumed_step)


def take(videos: UnreadableVideos, state: TrainingState, *failures: Failure) -> None:
    state.step += 1
    videos.add(state, 8, len(failures), failures)


def test_counts_by_path_and_class(tmp_path: Path, accelerator: Accelerator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="vidtl")
    videos, state = unreadable(tmp_path, accelerator), TrainingState()
    both = ("jump", "run")
    take(videos, state, Failure(0, "a.mp4", "cut short", ("jump",)), Failure(4, "b.mp4", "empty", ("jump",), 1))
    assert [record.args for record in caplog.records] == [
        ("a.mp4", "jump", "cut short"),
        ("b.mp4", "jump", "empty"),
    ]
    caplog.clear()
    take(videos, state, Failure(7, "c.mp4", "empty", both))
    take(videos, state)
    assert [record.args for record in caplog.records][1:] == [("jump", 4, 30), ("run", 2, 60)]
    caplog.clear()
    for _ in range(3):
        take(videos, state)
    assert not caplog.records  # nothing new in the second epoch
    assert videos.by_path == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1}
    assert videos.by_class(state.step) == {"jump": ReplacedClips(4, 60), "run": ReplacedClips(2, 120)}
    # Videos are counted, not clips: 4 in each of 6 steps, and the attempts that failed.
    assert (state.videos_asked, state.videos_unreadable) == (27, 3)
    lines = [json.loads(line) for line in (tmp_path / "unreadable.jsonl").read_text().splitlines()]
    assert lines[2] == {"step": 2, "path": "c.mp4", "reason": "empty", "classes": ["jump", "run"], "attempt": 0}


def test_a_resumed_run_continues_the_counts(tmp_path: Path, accelerator: Accelerator) -> None:
    first, state = unreadable(tmp_path, accelerator), TrainingState()
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")  # not UTF-8
    take(first, state, Failure(0, name, "cut short", ("jump",)))
    take(first, state, Failure(0, name, "cut short", ("jump",)))  # lost: the run resumes from step 1
    second, state = unreadable(tmp_path, accelerator, resumed_step=1), TrainingState(step=1)
    assert second.by_path == {name: 1}
    take(second, state, Failure(3, "c.mp4", "empty", ("run",)))
    assert second.by_class(3) == {"jump": ReplacedClips(2, 30), "run": ReplacedClips(2, 60)}


def test_without_failures_there_is_no_file(tmp_path: Path, accelerator: Accelerator) -> None:
    videos, state = unreadable(tmp_path, accelerator), TrainingState()
    for _ in range(4):
        take(videos, state)
    assert videos.by_class(4) == {}
    assert not (tmp_path / "unreadable.jsonl").exists()
