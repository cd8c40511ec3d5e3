import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.refusals import refused
from vidtl.config import OptimizerConfig, ScheduleConfig
from vidtl.config.training import Length, parse_length
from vidtl.training.optimizer import learning_rate_of, peak_learning_rate

PEAK = 0.3


def course(total, warmup, **settings):
    """Learning rates of a run of `total` steps; an epoch has 10 steps and 77 samples."""
    schedule = ScheduleConfig(length=f"{total} steps", warmup=f"{warmup} steps", **settings)
    return learning_rate_of(schedule, PEAK, 10, 77)


@pytest.mark.parametrize(("total", "warmup"), [(300, 25), (7, 0), (40, 40), (1, 0)])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_vivits_rule_at_every_step(total, warmup, final):
    rate = course(total, warmup, name="cosine", final_factor=final)
    steps = np.arange(total)
    warm = np.minimum(1, steps / warmup) if warmup else np.ones(total)
    progress = np.maximum(0, steps - warmup) / max(1, total - warmup)
    expected = warm * (final + (1 - final) * 0.5 * (1 + np.cos(np.pi * progress)))
    assert_allclose([rate(int(s)) for s in steps], PEAK * expected, atol=1e-12)


STEP = {"warmup": 5, "name": "step", "milestones": ("8 epochs", "60 steps"), "step_factor": 0.1}


@pytest.mark.parametrize(
    ("settings", "steps", "shares"),
    [
        (STEP, (1, 5, 59, 60, 79, 80, 99), (0.2, 1, 1, 0.1, 0.1, 0.01, 0.01)),
        ({"warmup": 4, "name": "constant"}, (0, 1, 3, 4, 50, 99), (0, 0.25, 0.75, 1, 1, 1)),
        ({"warmup": 4, "warmup_start": 0.1}, (0, 1, 2, 3, 4), (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)),
        ({"warmup": 20, "name": "linear", "final_factor": 0.2}, (20, 40, 60, 99), (1, 0.8, 0.6, 0.21)),
    ],
)
def test_other_shapes_at_chosen_steps(settings, steps, shares):
    rate = course(100, **settings)
    assert [rate(step) / PEAK for step in steps] == pytest.approx(shares)


def test_the_cool_down_has_the_last_rate():
    rate = course(120, 10, cooldown="2 epochs", final_factor=0.05)
    shorter = course(100, 10, final_factor=0.05)
    assert [rate(s) for s in range(100)] == [shorter(s) for s in range(100)]
    assert {rate(s) for s in range(100, 130)} == {PEAK * 0.05}


def test_the_three_units_are_equivalent():
    """An epoch of 10 steps has 77 samples: its last batch is not full."""
    runs = set()
    for size, unit in ((1, "epochs"), (10, "steps"), (77, "samples")):
        length, warmup, milestone = (f"{number * size} {unit}" for number in (30, 2.5, 20))
        schedule = ScheduleConfig(name="step", length=length, warmup=warmup, milestones=(milestone,))
        assert schedule.total_steps(10, 77) == 300
        runs.add(tuple(map(learning_rate_of(schedule, PEAK, 10, 77), range(300))))
    assert len(runs) == 1
    spellings = (parse_length(text, "x") for text in ("1 epoch", " 2_000_000samples ", "2e6 Samples"))
    assert [*spellings] == [Length(1, "epochs"), *[Length(2_000_000, "samples")] * 2]


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"length": "30"}, ("schedule.length", "'30'", "30 epochs")),
        ({"length": "-3 epochs"}, ("schedule.length", "'-3 epochs'")),
        ({"length": "1__0 steps"}, ("schedule.length", "'1__0 steps'")),
        ({"warmup": "1e400 epochs"}, ("schedule.warmup", "'1e400 epochs'")),
        ({"length": "0 epochs"}, ("schedule.length", "'0 epochs'", "more than 0")),
        ({"warmup": "3 epoks"}, ("schedule.warmup", "'3 epoks'", "'epochs'")),
        ({"milestones": ("3 epochs",)}, ("schedule.milestones", "schedule.name step")),
        ({"name": "step"}, ("schedule.milestones", "schedule.name step")),
        ({"warmup": "3 epochs"}, ("schedule.warmup", "'3 epochs'", "schedule.length", "'20 steps'")),
        ({"warmup": "1 epoch", "cooldown": "11 steps"}, ("schedule.cooldown", "'11 steps'")),
        ({"warmup": "0 steps", "name": "step", "milestones": ("2 epochs",)}, ("schedule.milestones", "'2 epochs'")),
    ],
)
def test_lengths_that_are_wrong_or_do_not_fit_are_refused(settings, parts):
    with refused(*parts):
        learning_rate_of(ScheduleConfig(**{"length": "20 steps", **settings}), PEAK, 10, 77)


def test_the_rate_is_scaled_to_the_reference_batch():
    plain, scaled = (OptimizerConfig(learning_rate=0.1, reference_batch=reference) for reference in (0, 64))
    assert (peak_learning_rate(plain, 256), peak_learning_rate(scaled, 256)) == pytest.approx((0.1, 0.4))
