"""The limit on unreadable videos: probabilities of a stop, computed exactly over (videos asked, unreadable ones)."""

import numpy as np
import pytest

from vidtl.training.monitor import FALSE_STOPS, is_above


def stop_probability(limit, share, num_videos):
    unreadable = np.arange(num_videos + 1)
    going, stopped, first = np.eye(1, num_videos + 1)[0], 0.0, 0
    for asked in range(1, num_videos + 1):
        bad = going * (share(asked - 1, unreadable) if callable(share) else share)
        going = going - bad + np.roll(bad, 1)
        while first <= asked and not is_above(limit, first, asked):
            first += 1
        stopped += going[first:].sum()
        going[first:] = 0
    return float(stopped)


def epochs_of(num_videos, num_unreadable):
    """Every epoch visits each video of a set once."""

    def share(asked, unreadable):
        epoch, place = divmod(asked, num_videos)
        return np.clip((epoch + 1) * num_unreadable - unreadable, 0, num_videos - place) / (num_videos - place)

    return share


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05, 0.2, 0.9])
def test_a_set_within_the_limit_is_not_stopped(limit):
    assert 0 < stop_probability(limit, limit, 4000) < FALSE_STOPS
    assert stop_probability(limit, 0.8 * limit, 4000) < FALSE_STOPS
    assert stop_probability(limit, epochs_of(1000, round(1000 * limit)), 3000) < FALSE_STOPS


def test_a_set_of_twice_the_limit_is_stopped_within_2000_videos():
    assert stop_probability(0.05, 0.1, 2000) > 0.999
    assert stop_probability(0.05, epochs_of(1000, 100), 2000) > 0.999
    assert stop_probability(0.2, 0.4, 500) > 0.999


def test_limits_at_the_ends_and_sets_far_above():
    assert [is_above(0.0, 0, 10**6), is_above(0.0, 1, 10**6), is_above(1.0, 50, 50)] == [False, True, False]
    assert [is_above(1e-6, 1, 100), is_above(1e-6, 3, 100)] == [False, True]
    assert [is_above(0.05, 9, 9), is_above(0.05, 10, 10)] == [False, True]
