"""The order of clips: every record once per epoch, the same for any number of processes and accumulation steps."""

import itertools

import numpy as np
import pytest

from vidtl.config import ExperimentConfig, ScheduleConfig, TrainingConfig
from vidtl.data.loader import MicroBatchSampler, TrainLoader
from vidtl.errors import UserError


def loader(
    n: int, batch: int, processes: int = 1, index: int = 0, accumulation: int = 1, epochs: float = 3
) -> TrainLoader:
    config = ExperimentConfig(
        training=TrainingConfig(batch_size=batch, accumulation_steps=accumulation, seed=5),
        schedule=ScheduleConfig(length=f"{epochs} epochs", warmup="0 epochs"),
    )
    return TrainLoader(range(n), config, index, processes)  # type: ignore[arg-type]  # only its length matters here


def clips_of_step(n: int, batch: int, processes: int, accumulation: int, step: int) -> list[tuple[int, int, float]]:
    loaders = [loader(n, batch, processes, index, accumulation) for index in range(processes)]
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


def test_epochs_differ_and_seeds_differ() -> None:
    one = loader(50, 50)
    orders = [[key.record for key in one.keys(epoch, 0)] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert not np.array_equal(orders[0], np.arange(50))


def test_going_on_from_a_step_gives_what_the_unbroken_run_would() -> None:
    one = loader(13, 4, accumulation=2)
    whole = list(MicroBatchSampler(one, 0))
    for start in range(one.total_steps):
        rest = MicroBatchSampler(one, start)
        assert list(rest) == whole[2 * start :]
        assert len(rest) == len(whole) - 2 * start


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match=r"training.batch_size is 10; allowed: multiples of 6 \(2 processes x 3"):
        loader(20, 10, processes=2, accumulation=3)
