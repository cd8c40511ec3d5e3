"""The order of clips for any number of processes and accumulation steps, and workers that die or hang."""

import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.data.conftest import config_with
from tests.environment import REPOSITORY
from tests.refusals import assert_refusal, refused
from vidtl.config import AugmentationConfig, ExperimentConfig, ScheduleConfig, TrainingConfig
from vidtl.data import dataset as dataset_module
from vidtl.data.loader import TrainLoader, _named_failures
from vidtl.errors import UserError


def loader(n, batch, processes=1, index=0, accumulation=1, epochs=3, repeats=1):
    config = ExperimentConfig(
        augmentation=AugmentationConfig(repeats=repeats),
        training=TrainingConfig(batch_size=batch, accumulation_steps=accumulation, seed=5),
        schedule=ScheduleConfig(length=f"{epochs} epochs", warmup="0 epochs"),
    )
    return TrainLoader(range(n), config, index, processes)  # only its length matters here


def clips_of_step(n, batch, processes, accumulation, step, repeats=1):
    loaders = [loader(n, batch, processes, index, accumulation, repeats=repeats) for index in range(processes)]
    pairs = itertools.product(range(accumulation), loaders)
    return [tuple(key) for micro_batch, part in pairs for key in part.keys(step, micro_batch)]


@pytest.mark.parametrize(("batch", "repeats"), [(1, 1), (4, 1), (6, 1), (2, 2), (6, 3), (12, 2)])
def test_every_video_once_per_epoch(batch, repeats):
    for n in range(1, 18):
        one, unrepeated = loader(n, batch, repeats=repeats), loader(n, batch // repeats)
        assert one.total_steps == 3 * one.steps_per_epoch
        assert one.samples_per_epoch == repeats * n
        orders = set()
        for epoch in range(3):
            steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
            keys = [one.keys(step, 0) for step in steps]
            assert keys == [unrepeated.keys(step, 0) for step in steps]
            assert sorted(key.record for keys in keys for key in keys if key.weight) == list(range(n))
            assert {key.epoch for keys in keys for key in keys} == {epoch}
            orders.add(tuple(key.record for keys in keys for key in keys))
            counts = [repeats * sum(key.weight for key in keys) for keys in keys]
            assert counts == [one.global_count(step) for step in steps]
        assert len(orders) == 3 or n < 8


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (3, 1), (1, 2), (2, 3), (6, 1)])
def test_a_step_has_the_same_clips_for_any_division(processes, accumulation):
    for n, step, repeats in itertools.product((5, 12, 13, 24), range(4), (1, 2)):
        whole = clips_of_step(n, 6 * repeats, 1, 1, step, repeats)
        assert clips_of_step(n, 6 * repeats, processes, accumulation, step, repeats) == whole


def test_a_resumed_run_continues_with_the_same_places():
    one = loader(13, 4, accumulation=2)
    for start in range(one.total_steps):
        assert list(one.places(start)) == list(one.places(0))[2 * start :]


def test_batches_that_cannot_be_divided_or_mixed_are_refused():
    with refused("training.batch_size"):
        loader(20, 10, processes=2, accumulation=3)
    with refused("training.batch_size", "multiples of 12"):
        loader(20, 6, processes=3, repeats=4)
    config = ExperimentConfig(training=TrainingConfig(batch_size=4), augmentation=AugmentationConfig(cutmix_alpha=1.0))
    TrainLoader(range(20), config, 0, 2)
    with refused("training.batch_size"):
        TrainLoader(range(20), config, 0, 4)


def test_clips_of_classes_are_counted_without_reading_anything(multi_records):
    config = ExperimentConfig(training=TrainingConfig(batch_size=4), augmentation=AugmentationConfig(repeats=2))
    one, names = TrainLoader(multi_records, config, 0, 1), multi_records.classes.names
    for steps in range(12):
        keys = [key for step in range(steps) for key in one.keys(step, 0) if key.weight]
        visited = [names[number] for key in keys for number in multi_records.labels(key.record)]
        assert one.clips_of_classes(steps) == {name: 2 * visited.count(name) for name in visited}


def test_a_lost_worker_is_named_with_or_without_a_message(records):
    lost = {"(ConnectionResetError)": ConnectionResetError(), "(reset)": ConnectionError("reset\nby a peer")}
    for reason, error in lost.items():
        with refused(records.paths[3], reason), _named_failures(records, [3]):
            raise error
    with pytest.raises(RuntimeError), _named_failures(records, [3]):  # not of a worker
        raise RuntimeError


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "Killed|exited unexpectedly"),
        (lambda: os._exit(0), "timed out|exited unexpectedly|reset|closed"),
        (lambda: time.sleep(60), "timed out after 1"),
    ],
)
def test_a_worker_that_dies_or_hangs_names_its_videos(records, monkeypatch, death, reason):
    config = dataclasses.replace(
        config_with("data", num_workers=1, worker_timeout_s=1.0),
        augmentation=AugmentationConfig(repeats=2),
        training=TrainingConfig(batch_size=2),
    )
    loader = TrainLoader(records, config, 0, 1)
    fatal = loader.keys(0, 0)[0].record  # later ones are read ahead, so only "at or near" is certain
    opened = dataset_module.open_record

    def open_or_die(records, index, *arguments):
        if index == fatal:
            death()
        return opened(records, index, *arguments)

    monkeypatch.setattr(dataset_module, "open_record", open_or_die)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)  # wait for hung workers
    with pytest.raises(UserError) as caught:
        list(loader.iterate())
    assert_refusal(str(caught.value), records.paths[fatal])
    assert re.search(reason, str(caught.value))


CODE = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.data.conftest import CONFIG
from vidtl.annotations.description import load_description, read_records
from vidtl.config import DataConfig
from vidtl.data.loader import TrainLoader
records = read_records(load_description("toy"), "train", Path(sys.argv[1]))
batches = TrainLoader(records, replace(CONFIG, data=DataConfig(num_workers=2)), 0, 1).iterate()
next(batches)
raise RuntimeError("in the middle of a run")
"""


def test_an_error_between_batches_ends_the_process(records):
    command = [sys.executable, "-c", CODE, str(records.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: in the middle of a run"), done.stderr
