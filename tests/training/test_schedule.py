import numpy as np
import pytest
from numpy.testing import assert_allclose

from vidtl.config import ScheduleConfig
from vidtl.training.schedule import learning_rate_factor


@pytest.mark.parametrize(("total", "warmup"), [(300, 25), (7, 0), (40, 40), (1, 0)])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_vivits_rule_at_every_step(total, warmup, final):
    config = ScheduleConfig(name="cosine", final_factor=final)
    steps = np.arange(total)
    warm = np.minimum(1, steps / warmup) if warmup else np.ones(total)
    progress = np.maximum(0, steps - warmup) / max(1, total - warmup)
    expected = warm * (final + (1 - final) * 0.5 * (1 + np.cos(np.pi * progress)))
    assert_allclose([learning_rate_factor(int(s), total, warmup, config) for s in steps], expected, atol=1e-12)


def test_stays_at_the_end_instead_of_starting_another_period():
    config = ScheduleConfig(name="cosine", final_factor=0.01)
    assert [learning_rate_factor(step, 100, 10, config) for step in (100, 101, 250)] == pytest.approx([0.01] * 3)


def test_constant_only_warms_up():
    config = ScheduleConfig(name="constant")
    assert [learning_rate_factor(step, 100, 4, config) for step in (0, 1, 3, 4, 50, 99)] == [0, 0.25, 0.75, 1, 1, 1]


def test_peaks_once_at_the_end_of_the_warm_up():
    factors = [learning_rate_factor(step, 300, 25, ScheduleConfig()) for step in range(300)]
    assert factors.index(max(factors)) == 25
    assert max(factors) == 1.0
