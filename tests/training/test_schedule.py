import numpy as np
import pytest
from numpy.testing import assert_allclose

from vidtl.config import ExperimentConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from vidtl.config.length import Length, parse_length
from vidtl.errors import UserError
from vidtl.training.schedule import learning_rate_of

PEAK = 0.3


def course(total, warmup, **settings):
    """Learning rates of a run of `total` steps; an epoch has 10 steps and 77 samples."""
    schedule = ScheduleConfig(length=f"{total} steps", warmup=f"{warmup} steps", **settings)
    config = ExperimentConfig(schedule=schedule, optimizer=OptimizerConfig(learning_rate=PEAK))
    return learning_rate_of(config, 10, 77)


@pytest.mark.parametrize(("total", "warmup"), [(300, 25), (7, 0), (40, 40), (1, 0)])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_vivits_rule_at_every_step(total, warmup, final):
    rate = course(total, warmup, name="cosine", final_factor=final)
    steps = np.arange(total)
    warm = np.minimum(1, steps / warmup) if warmup else np.ones(total)
    progress = np.maximum(0, steps - warmup) / max(1, total - warmup)
    expected = warm * (final + (1 - final) * 0.5 * (1 + np.cos(np.pi * progress)))
    assert_allclose([rate(int(s)) for s in steps], PEAK * expected, atol=1e-12)


def test_linear_falls_evenly():
    rate = course(110, 10, name="linear", final_factor=0.2)
    steps = np.arange(10, 110)
    assert_allclose([rate(int(s)) for s in steps], PEAK * (1 - 0.8 * (steps - 10) / 100), rtol=1e-12)


def test_steps_multiply_from_each_milestone_on():
    rate = course(100, 5, name="step", milestones=("8 epochs", "60 steps"), step_factor=0.1)
    assert [rate(s) / PEAK for s in (5, 59, 60, 79, 80, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rate(1) == pytest.approx(PEAK / 5)


def test_constant_only_warms_up():
    rate = course(100, 4, name="constant")
    assert [rate(step) / PEAK for step in (0, 1, 3, 4, 50, 99)] == pytest.approx([0, 0.25, 0.75, 1, 1, 1])


def test_warms_up_from_an_absolute_rate():
    rate = course(100, 4, warmup_start=0.1)
    assert [rate(step) for step in range(5)] == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])


def test_cools_down_at_the_last_rate_and_stays_there():
    rate = course(120, 10, cooldown="2 epochs", final_factor=0.05)
    shorter = course(100, 10, final_factor=0.05)
    assert [rate(s) for s in range(100)] == [shorter(s) for s in range(100)]
    assert {rate(s) for s in range(100, 130)} == {PEAK * 0.05}


def test_peaks_once_at_the_end_of_the_warm_up():
    rates = [course(300, 25)(step) for step in range(300)]
    assert rates.index(max(rates)) == 25
    assert max(rates) == PEAK


def test_the_three_units_say_the_same():
    """An epoch of 10 steps has 77 samples: its last batch is not full."""
    runs = []
    for length, warmup, milestone in (
        ("30 epochs", "2.5 epochs", "20 epochs"),
        ("300 steps", "25 steps", "200 steps"),
        ("2_310 samples", "192.5 samples", "1540 samples"),
    ):
        schedule = ScheduleConfig(name="step", length=length, warmup=warmup, milestones=(milestone,))
        assert schedule.total_steps(10, 77) == 300
        runs.append([learning_rate_of(ExperimentConfig(schedule=schedule), 10, 77)(s) for s in range(300)])
    assert runs[0] == runs[1] == runs[2]


def test_lengths_are_read_with_or_without_plural():
    assert parse_length("1 epoch", "x") == Length(1, "epochs")
    assert parse_length(" 2_000_000samples ", "x") == Length(2_000_000, "samples")
    assert parse_length("2e6 Samples", "x") == Length(2_000_000, "samples")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": "30"}, "schedule.length is '30'; allowed: a number and its unit"),
        ({"length": "-3 epochs"}, "schedule.length is '-3 epochs'; allowed"),
        ({"length": "1_ epochs"}, "schedule.length is '1_ epochs'; allowed: a number and its unit"),
        ({"length": "1__0 steps"}, "schedule.length is '1__0 steps'; allowed: a number and its unit"),
        ({"warmup": "1e400 epochs"}, "schedule.warmup is '1e400 epochs'; allowed: a number and its unit"),
        ({"length": "0 epochs"}, "schedule.length is '0 epochs'; allowed: more than 0"),
        ({"warmup": "3 epoks"}, "schedule.warmup is '3 epoks'; did you mean 'epochs'?"),
        ({"milestones": ("3 epochs",)}, "schedule.milestones is .*; allowed: one or more with schedule.name step"),
        ({"name": "step"}, "schedule.milestones is .*; allowed: one or more with schedule.name step"),
    ],
)
def test_mistakes_in_one_section_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        ScheduleConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": "3 epochs"}, "schedule.warmup is '3 epochs'; allowed: what fits into .* '20 steps'"),
        ({"warmup": "1 epoch", "cooldown": "11 steps"}, "schedule.cooldown is '11 steps'"),
        ({"warmup": "0 steps", "name": "step", "milestones": ("2 epochs",)}, "schedule.milestones has '2 epochs', ste"),
    ],
)
def test_lengths_that_do_not_fit_each_other_are_named(settings, message):
    config = ExperimentConfig(schedule=ScheduleConfig(length="20 steps", **settings))
    with pytest.raises(UserError, match=message):
        learning_rate_of(config, 10, 77)


def test_the_rate_is_scaled_to_the_global_batch_on_request():
    training = TrainingConfig(batch_size=256)
    plain, scaled = (
        ExperimentConfig(training=training, optimizer=OptimizerConfig(learning_rate=0.1, reference_batch=reference))
        for reference in (0, 64)
    )
    assert learning_rate_of(plain, 10, 77).peak == 0.1
    assert learning_rate_of(scaled, 10, 77).peak == pytest.approx(0.4)
