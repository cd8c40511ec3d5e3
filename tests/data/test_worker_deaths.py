"""A decoding worker that dies or hangs ends the run in one line with its videos, and workers end with the run."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.environment import REPOSITORY
from tests.refusals import refused
from vidtl.annotations.records import Records
from vidtl.config import AugmentationConfig, ClipConfig, DataConfig, ExperimentConfig, TrainingConfig
from vidtl.data import dataset as dataset_module
from vidtl.data.loader import TrainLoader, _named_failures
from vidtl.errors import UserError

CONFIG = ExperimentConfig(
    data=DataConfig(num_workers=1, worker_timeout_s=2.0),
    clip=ClipConfig(num_frames=2, stride=1, frame_size=(16, 16), short_side=16),
    training=TrainingConfig(batch_size=2),
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConnectionResetError(), "(ConnectionResetError)"), (ConnectionError("reset\nby a peer"), "(reset)")],
)
def test_a_lost_worker_is_reported_with_or_without_a_message(
    records: Records, error: ConnectionError, reason: str
) -> None:
    with refused(records.paths[3], reason), _named_failures(records, [3]):
        raise error


def test_our_own_error_without_a_message_is_raised_as_it_is(records: Records) -> None:
    with pytest.raises(RuntimeError), _named_failures(records, [3]):
        raise RuntimeError


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "Segmentation fault|exited unexpectedly"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "Killed|exited unexpectedly"),
        (lambda: os._exit(0), "timed out|exited unexpectedly|reset|closed"),
        (lambda: time.sleep(60), "timed out after 2"),
    ],
    ids=["segmentation fault", "killed for memory", "exit 0", "hang"],
)
def test_a_worker_that_dies_or_hangs_names_its_videos(
    records: Records, monkeypatch: pytest.MonkeyPatch, death: Callable[[], None], reason: str
) -> None:
    config = dataclasses.replace(CONFIG, augmentation=AugmentationConfig(repeats=2))
    loader = TrainLoader(records, config, 0, 1)
    fatal = loader.keys(0, 0)[0].record  # later ones are read ahead, so only "at or near" is certain
    opened = dataset_module.open_record

    def open_or_die(records: Records, index: int, *arguments: object) -> object:
        if index == fatal:
            death()
        return opened(records, index, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "open_record", open_or_die)
    with pytest.raises(UserError, match=re.escape(records.paths[fatal])) as caught:
        list(loader.iterate())
    assert re.search(reason, str(caught.value))
    assert "\n" not in str(caught.value)


CODE = """
import sys
from vidtl.config import ClipConfig, DataConfig, ExperimentConfig, TrainingConfig
from vidtl.annotations.description import load_description, read_records
from vidtl.data.loader import TrainLoader
from pathlib import Path
config = ExperimentConfig(
    data=DataConfig(num_workers=2),
    clip=ClipConfig(num_frames=4, frame_size=(32, 32), short_side=36),
    training=TrainingConfig(batch_size=4),
)
batches = TrainLoader(read_records(load_description("toy"), "train", Path(sys.argv[1])), config, 0, 1).iterate()
next(batches)
raise RuntimeError("in the middle of a run")
"""


def test_an_error_between_batches_ends_the_process(records: Records) -> None:
    command = [sys.executable, "-c", CODE, str(records.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: in the middle of a run"), done.stderr
