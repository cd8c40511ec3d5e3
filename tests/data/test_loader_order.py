"""The order of clips: every record once per epoch, the same for any number of processes and accumulation steps."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import refused
from vidtl.annotations.records import ClassNames, Records, StringColumn
from vidtl.config import AugmentationConfig, ExperimentConfig, ScheduleConfig, TrainingConfig
from vidtl.data.loader import TrainLoader


def loader(
    n: int, batch: int, processes: int = 1, index: int = 0, accumulation: int = 1, epochs: float = 3, repeats: int = 1
) -> TrainLoader:
    config = ExperimentConfig(
        augmentation=AugmentationConfig(repeats=repeats),
        training=TrainingConfig(batch_size=batch, accumulation_steps=accumulation, seed=5),
        schedule=ScheduleConfig(length=f"{epochs} epochs", warmup="0 epochs"),
    )
    return TrainLoader(range(n), config, index, processes)  # type: ignore[arg-type]  # only its length matters here


def clips_of_step(
    n: int, batch: int, processes: int, accumulation: int, step: int, repeats: int = 1
) -> list[tuple[int, int, float]]:
    loaders = [loader(n, batch, processes, index, accumulation, repeats=repeats) for index in range(processes)]
    pairs = itertools.product(range(accumulation), loaders)
    return [tuple(key) for micro_batch, part in pairs for key in part.keys(step, micro_batch)]


@pytest.mark.parametrize("n", range(1, 18))
@pytest.mark.parametrize("batch", [1, 4, 6])
def test_every_record_once_per_epoch(n: int, batch: int) -> None:
    one = loader(n, batch)
    assert one.total_steps == 3 * one.steps_per_epoch
    for epoch in range(3):
        steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
        keys = [key for step in steps for key in one.keys(step, 0)]
        assert sorted(key.record for key in keys if key.weight) == list(range(n))
        assert {key.epoch for key in keys} == {epoch}
        assert sum(one.global_count(step) for step in steps) == n
        for step in steps:
            assert sum(key.weight for key in one.keys(step, 0)) == one.global_count(step)


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (3, 1), (1, 2), (2, 3), (6, 1)])
def test_a_step_has_the_same_clips_however_it_is_shared(processes: int, accumulation: int) -> None:
    for n, step in itertools.product((5, 6, 13, 24), range(4)):
        assert clips_of_step(n, 6, processes, accumulation, step) == clips_of_step(n, 6, 1, 1, step)


@pytest.mark.parametrize("n", range(1, 14))
@pytest.mark.parametrize(("batch", "repeats"), [(2, 2), (6, 3), (12, 2)])
def test_repeats_count_as_clips_and_an_epoch_still_visits_each_video_once(n: int, batch: int, repeats: int) -> None:
    one = loader(n, batch, repeats=repeats)
    steps = range(one.steps_per_epoch)
    keys = [key for step in steps for key in one.keys(step, 0)]
    assert sorted(key.record for key in keys if key.weight) == list(range(n))
    assert sum(one.global_count(step) for step in steps) == one.samples_per_epoch == repeats * n
    assert all(len(one.keys(step, 0)) * repeats == batch for step in steps)
    # The videos of a step are those of an unrepeated batch of as many videos.
    assert [one.keys(step, 0) for step in steps] == [loader(n, batch // repeats).keys(step, 0) for step in steps]


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (3, 1), (1, 2), (3, 2)])
def test_repeats_are_shared_as_whole_videos(processes: int, accumulation: int) -> None:
    for n, step in itertools.product((5, 12, 13), range(3)):
        whole = clips_of_step(n, 12, 1, 1, step, repeats=2)
        assert clips_of_step(n, 12, processes, accumulation, step, repeats=2) == whole
    with refused("multiples of 12 (3 processes x 1 accumulation steps x 4 clips per video)"):
        loader(20, 6, processes=3, repeats=4)


def test_epochs_differ_and_seeds_differ() -> None:
    one = loader(50, 50)
    orders = [[key.record for key in one.keys(epoch, 0)] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert not np.array_equal(orders[0], np.arange(50))


def test_going_on_from_a_step_gives_what_the_unbroken_run_would() -> None:
    one = loader(13, 4, accumulation=2)
    whole = list(one.places(0))
    for start in range(one.total_steps):
        assert list(one.places(start)) == whole[2 * start :]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with refused("training.batch_size"):
        loader(20, 10, processes=2, accumulation=3)


def test_a_process_with_one_clip_cannot_mix() -> None:
    config = ExperimentConfig(training=TrainingConfig(batch_size=4), augmentation=AugmentationConfig(cutmix_alpha=1.0))
    TrainLoader(range(20), config, 0, 2)  # type: ignore[arg-type]
    with refused("training.batch_size"):
        TrainLoader(range(20), config, 0, 4)  # type: ignore[arg-type]


def test_clips_of_classes_are_counted_without_reading_anything() -> None:
    classes = ClassNames(("jump", "run", "never"))
    records = Records(
        root=Path(),
        classes=classes,
        multi_label=True,
        annotation=Path("labels.csv"),
        ids=StringColumn.from_strings("abcde"),
        paths=StringColumn.from_strings("abcde"),
        lines=np.arange(5, dtype=np.int32),
        label_offsets=np.array([0, 1, 3, 3, 5, 6]),
        label_classes=np.array([0, 0, 1, 1, 1, 1], np.int32),  # the fourth video has the same class twice
        label_starts_s=np.full(6, -np.inf, np.float32),
        label_ends_s=np.full(6, np.inf, np.float32),
        segment_starts_s=np.zeros(5),
        segment_ends_s=np.full(5, np.inf),
    )
    config = ExperimentConfig(training=TrainingConfig(batch_size=4), augmentation=AugmentationConfig(repeats=2))
    one = TrainLoader(records, config, 0, 1)
    assert one.clips_of_classes(0) == {}
    assert one.clips_of_classes(3) == {"jump": 4, "run": 6}
    for steps in range(8):
        keys = [key for step in range(steps) for key in one.keys(step, 0) if key.weight]
        names = [classes.names[number] for key in keys for number in records.labels(key.record)]
        assert one.clips_of_classes(steps) == {name: 2 * names.count(name) for name in sorted(set(names))}
