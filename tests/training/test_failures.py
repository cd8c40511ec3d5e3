"""Replaced clips are counted by class as well as by path, told once an epoch, and recalled by a resumed run."""

import json
import logging
from pathlib import Path

import pytest
from accelerate import Accelerator

from vidtl.config import AugmentationConfig, DataConfig, ExperimentConfig
from vidtl.data.batch import Failure
from vidtl.training.failures import ReplacedClips, UnreadableVideos
from vidtl.training.state import TrainingState

CONFIG = ExperimentConfig(data=DataConfig(max_unreadable_share=0.9), augmentation=AugmentationConfig(repeats=2))


class Loader:
    steps_per_epoch = 3

    def clips_of_classes(self, steps: int) -> dict[str, int]:
        return {"jump": 10 * steps, "run": 20 * steps}


def unreadable(folder: Path, accelerator: Accelerator, resumed_step: int = 0) -> UnreadableVideos:
    return UnreadableVideos(folder / "unreadable.jsonl", CONFIG, accelerator, Loader(), resumed_step)


def take(videos: UnreadableVideos, state: TrainingState, *failures: Failure) -> None:
    state.step += 1
    videos.add(state, 8, len(failures), failures)


def test_counts_by_path_and_class(tmp_path: Path, accelerator: Accelerator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="vidtl")
    videos, state = unreadable(tmp_path, accelerator), TrainingState()
    both = ("jump", "run")
    take(videos, state, Failure(0, "a.mp4", "cut short", ("jump",)), Failure(4, "b.mp4", "empty", ("jump",), 1))
    assert [record.getMessage() for record in caplog.records] == [
        "video cannot be read and is substituted: a.mp4 (jump): cut short",
        "video cannot be read and is substituted: b.mp4 (jump): empty",
    ]
    caplog.clear()
    take(videos, state, Failure(7, "c.mp4", "empty", both))
    take(videos, state)
    assert [record.getMessage() for record in caplog.records][1:] == [
        "class jump: 4 of 30 clips replaced so far",
        "class run: 2 of 60 clips replaced so far",
    ]
    caplog.clear()
    for _ in range(3):
        take(videos, state)
    assert not caplog.records  # nothing new in the second epoch
    assert videos.by_path() == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1}
    assert videos.by_class(state.step) == {"jump": ReplacedClips(4, 60), "run": ReplacedClips(2, 120)}
    # Videos are counted, not clips: 4 in each of 6 steps, and the attempts that failed.
    assert (state.videos_asked, state.videos_unreadable) == (27, 3)
    lines = [json.loads(line) for line in (tmp_path / "unreadable.jsonl").read_text().splitlines()]
    assert lines[2] == {"step": 2, "path": "c.mp4", "reason": "empty", "classes": ["jump", "run"], "attempt": 0}


def test_a_resumed_run_goes_on_counting(
    tmp_path: Path, accelerator: Accelerator, caplog: pytest.LogCaptureFixture
) -> None:
    first, state = unreadable(tmp_path, accelerator), TrainingState()
    take(first, state, Failure(0, "a.mp4", "cut short", ("jump",)))
    take(first, state, Failure(0, "a.mp4", "cut short", ("jump",)))  # lost: the run goes on from step 1
    second, state = unreadable(tmp_path, accelerator, resumed_step=1), TrainingState(step=1)
    assert second.by_class(1) == {"jump": ReplacedClips(2, 10)}
    caplog.set_level(logging.WARNING, logger="vidtl")
    take(second, state, Failure(3, "c.mp4", "empty", ("run",)))
    take(second, state)
    assert "class jump: 2 of 30 clips replaced so far" in caplog.text
    assert second.by_class(3) == {"jump": ReplacedClips(2, 30), "run": ReplacedClips(2, 60)}


def test_names_that_are_not_utf8_are_listed_and_recalled(tmp_path: Path, accelerator: Accelerator) -> None:
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    take(unreadable(tmp_path, accelerator), TrainingState(), Failure(0, name, "cut short", ("jump",)))
    for _ in range(2):
        assert unreadable(tmp_path, accelerator, resumed_step=1).by_path() == {name: 1}


def test_nothing_broken_is_nothing_to_tell(tmp_path: Path, accelerator: Accelerator) -> None:
    videos, state = unreadable(tmp_path, accelerator), TrainingState()
    for _ in range(4):
        take(videos, state)
    assert videos.by_class(4) == {}
    assert not (tmp_path / "unreadable.jsonl").exists()
