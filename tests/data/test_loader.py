"""The order of clips for any number of processes and accumulation steps, and videos that end their worker."""

import ctypes
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.data.conftest import config_with, eval_loader
from tests.environment import REPOSITORY
from tests.refusals import refused
from vidtl.config import AugmentationConfig, ExperimentConfig, ScheduleConfig, TrainingConfig
from vidtl.data import dataset as dataset_module
from vidtl.data.loader import TrainLoader, epoch_order, rarest_labels
from vidtl.video.limits import MEMORY_BYTES, frame_decoded


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


def test_batches_that_cannot_be_divided_or_mixed_are_refused():
    with refused("training.batch_size"):
        loader(20, 10, processes=2, accumulation=3)
    with refused("training.batch_size", "multiples of 12"):
        loader(20, 6, processes=3, repeats=4)
    config = ExperimentConfig(training=TrainingConfig(batch_size=4), augmentation=AugmentationConfig(cutmix_alpha=1.0))
    TrainLoader(range(20), config, 0, 2)
    with refused("training.batch_size"):
        TrainLoader(range(20), config, 0, 4)


@pytest.mark.parametrize(("n", "num_groups"), [(1, 1), (7, 2), (40, 3), (41, 6), (30, 25)])
def test_balanced_epochs_visit_groups_and_their_records_equally_often(n, num_groups):
    groups = (np.random.default_rng(n).random(n) ** 3 * num_groups).astype(int)
    epochs = [epoch_order(n, groups, 5, epoch) for epoch in (0, 1, 0)]
    np.testing.assert_array_equal(epochs[0], epochs[2])
    assert n < 7 or not np.array_equal(epochs[0], epochs[1])
    for records, visits in epochs:
        assert len(records) == n
        counts = np.bincount(records, minlength=n)
        of_groups = [counts[groups == group] for group in np.unique(groups)]
        assert np.ptp([each.sum() for each in of_groups]) <= 1
        assert all(np.ptp(each) <= 1 for each in of_groups)
        assert sorted(zip(records, visits, strict=True)) == [(i, v) for i in range(n) for v in range(counts[i])]


def test_a_video_counts_for_its_rarest_label(multi_records):
    counts = multi_records.video_targets().sum(axis=0)
    for index, label in enumerate(rarest_labels(multi_records)):
        assert label in multi_records.labels(index)
        assert counts[label] == counts[multi_records.labels(index)].min()


def test_visits_of_a_video_are_different_clips_and_resume_alike(records):
    labels = records.video_targets().argmax(axis=1)
    unbalanced = records.select([*np.flatnonzero(labels <= 1), np.flatnonzero(labels == 2)[0]])
    whole = batches_of(unbalanced, balance="sampling")
    assert [batch.weights.tolist() for batch in whole] == [[1, 1, 1, 1, 1, 0]] * 2
    rare = [batch.pixels[:5][batch.targets[:5, 2] == 1] for batch in whole]
    assert max(map(len, rare)) == 2
    assert all(len(torch.unique(pixels, dim=0)) == len(pixels) for pixels in rare)
    (resumed,) = batches_of(unbalanced, 1, balance="sampling", num_workers=1)
    assert torch.equal(resumed.pixels, whole[1].pixels)
    config = config_with("data", balance="sampling")
    keys = [key for index in range(3) for key in TrainLoader(unbalanced, config, index, 3).keys(1, 0)]
    assert keys == TrainLoader(unbalanced, config, 0, 1).keys(1, 0)


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_clips_of_classes_are_counted_without_reading_anything(multi_records, balance):
    plan = {"training": TrainingConfig(batch_size=4), "augmentation": AugmentationConfig(repeats=2)}
    config = dataclasses.replace(config_with("data", balance=balance), **plan)
    one, names = TrainLoader(multi_records, config, 0, 1), multi_records.classes.names
    for steps in range(12):
        keys = [key for step in range(steps) for key in one.keys(step, 0) if key.weight]
        visited = [names[number] for key in keys for number in multi_records.labels(key.record)]
        assert one.clips_of_classes(steps) == {name: 2 * visited.count(name) for name in visited}


def burn():
    while True:
        pass


ENDS = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
    "crashed": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
    "left": (lambda: os._exit(0), "code 0"),
    "hung": (lambda: ctypes.CDLL(None).pause(), "not read in 4 s"),  # in C, where no Python code runs
    "slow": (burn, "0.2 s of CPU time"),
    "slow in C": (lambda: pow(3, 1 << 26), "0.2 s of CPU time"),  # with the interpreter's lock
    "big": (lambda: b"0" * (3 * MEMORY_BYTES), "4 GiB"),
}


@pytest.fixture
def ended_by(monkeypatch):
    """Make the reads of records end their worker: record -> function."""
    opened = dataset_module.open_record

    def set_ends(ends):
        def open_or_end(records, index, *arguments):
            ends.get(index, lambda: None)()
            return opened(records, index, *arguments)

        monkeypatch.setattr(dataset_module, "open_record", open_or_end)

    return set_ends


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("end", ENDS)
def test_the_video_that_ends_a_worker_is_named_and_the_rest_is_read(records, ended_by, end, num_workers):
    loader = eval_loader(records, num_workers=num_workers, read_timeout_s=0.2)
    function, reason = ENDS[end]
    expected = list(loader)
    ended_by({5: function})
    for video, before in zip(loader, expected, strict=True):
        if video.index == 5:
            assert (video.pixels, video.failure.path) == (None, records.paths[5])
            assert reason in video.failure.reason
        else:
            assert torch.equal(video.pixels, before.pixels)


def batches_of(records, start=0, given_up=None, **data):
    config = dataclasses.replace(
        config_with("data", read_timeout_s=0.2, **data), schedule=ScheduleConfig(length="2 epochs", warmup="0 epochs")
    )
    return list(TrainLoader(records, config, 0, 1).iterate(start, given_up))


def test_reads_given_up_are_substituted_alike_by_any_workers_and_when_resumed(records, ended_by):
    ended_by({2: burn, 9: ENDS["crashed"][0]})
    whole = batches_of(records, num_workers=2)
    given_up = {failure.given_up: failure.reason for batch in whole for failure in batch.failures}
    requested = [(read.epoch, read.record) for read in given_up if read.record == read.tried]
    assert sorted(requested) == [(0, 2), (0, 9), (1, 2), (1, 9)]
    ended_by({})  # next time they might have been read
    for start, num_workers in ((0, 0), (3, 1)):
        again = batches_of(records, start, given_up, num_workers=num_workers)
        for batch, other in zip(again, whole[start:], strict=True):
            assert torch.equal(batch.pixels, other.pixels)
            assert batch.failures == other.failures


def test_a_file_whose_frames_keep_coming_is_no_slow_one(records, ended_by):
    def decode_on():
        for _ in range(8):
            deadline = time.process_time() + 0.1
            while time.process_time() < deadline:
                pass
            frame_decoded()

    ended_by({5: decode_on})
    assert not any(video.failure for video in eval_loader(records, read_timeout_s=0.3))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGALRM])
def test_one_kill_from_outside_or_suspended_job_costs_no_video(records, ended_by, tmp_path, end):
    mark = tmp_path / "killed"
    ended_by({5: lambda: mark.exists() or (mark.touch(), os.kill(os.getpid(), end))})
    assert not any(video.failure for video in eval_loader(records))
    assert mark.exists()


@pytest.mark.parametrize(
    ("collate", "reason"), [(lambda videos: os._exit(7), "codes [7]"), (lambda videos: lambda: None, "codes [None]")]
)
def test_workers_that_fail_without_a_video_end_the_run(records, monkeypatch, collate, reason):
    """They die, as of shared memory that is full, or a batch cannot be sent."""
    monkeypatch.setattr("vidtl.data.loader.collate_views", collate)
    monkeypatch.setattr("vidtl.data.workers._IDLE_POLLS", 1)
    with refused(reason):
        list(eval_loader(records))


CODE = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.append("tools")
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
