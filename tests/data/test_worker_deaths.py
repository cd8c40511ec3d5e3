"""A decoding worker that dies, however it does, ends the run in one line with the videos that were due."""

import dataclasses
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from vidtl.config import ClipConfig, DataConfig, ExperimentConfig, TrainingConfig
from vidtl.data import dataset as dataset_module
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import TrainLoader, _named_failures
from vidtl.data.records import Records
from vidtl.data.toy import ToySettings, make_toy
from vidtl.errors import UserError
from vidtl.runtime.progress import Progress

CONFIG = ExperimentConfig(
    data=DataConfig(num_workers=1, worker_timeout_s=5.0),
    clip=ClipConfig(num_frames=2, stride=1, frame_size=(16, 16), short_side=16),
    training=TrainingConfig(batch_size=2),
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    folder = tmp_path_factory.mktemp("toy")
    make_toy(
        folder, ToySettings(videos_per_class_train=1, videos_per_class_val=1), Progress(visible=False), num_processes=1
    )
    return read_records(load_description("toy"), "train", folder)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConnectionResetError(), "ConnectionResetError"), (ConnectionError("reset\nby a peer"), "reset")],
)
def test_a_lost_worker_is_told_by_its_error_with_or_without_words(
    records: Records, error: ConnectionError, reason: str
) -> None:
    expected = re.escape(f"failed at or near {records.paths[3]} ({reason})") + "$"
    with pytest.raises(UserError, match=expected), _named_failures(records, [3]):
        raise error


def test_an_error_of_ours_without_words_stays_as_it_is(records: Records) -> None:
    with pytest.raises(RuntimeError), _named_failures(records, [3]):
        raise RuntimeError


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "Segmentation fault|exited unexpectedly"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "Killed|exited unexpectedly"),
        (lambda: os._exit(0), "timed out|exited unexpectedly|reset|closed"),
    ],
    ids=["segmentation fault", "killed for memory", "exit 0"],
)
def test_a_worker_that_dies_names_its_videos(
    records: Records, monkeypatch: pytest.MonkeyPatch, death: Callable[[], None], reason: str
) -> None:
    loader = TrainLoader(records, dataclasses.replace(CONFIG), 0, 1)
    fatal = loader.keys(0, 0)[0].record  # later ones are read ahead, and "at or near" is all that is known
    opened = dataset_module.open_record

    def open_or_die(records: Records, index: int, *arguments: object) -> object:
        if index == fatal:
            death()
        return opened(records, index, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "open_record", open_or_die)
    with pytest.raises(
        UserError, match="worker failed at or near .*" + re.escape(Path(records.paths[fatal]).name)
    ) as told:
        for _ in loader.iterate():
            pass
    assert re.search(reason, str(told.value))
    assert "\n" not in str(told.value)
