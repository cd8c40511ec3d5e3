"""Frozen parameters, and options without effect; tests/models/test_complexity.py has the counts."""

from collections.abc import Callable

import profile_model
import pytest

from tests.refusals import assert_refusal

Tool = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--batch", "2"], ["--batch", "--time"]),
        (["--time", "--batch", "-1"], ["--batch", -1]),
        (["--time", "--rounds", "0"], ["--rounds", 0]),
    ],
)
def test_options_without_effect_are_refused(run_main: Tool, options: list[str], parts: list[object]) -> None:
    code, _, errors = run_main(profile_model.main, *options)
    assert code == 2
    assert_refusal(errors, *parts)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--training.trainable", "['head']"), ["parameters without gradient: 1,354,560"]),
        (
            ("--time", "--rounds", "1"),
            [
                *("blocks.0 ... 2", "990,720", "total", "1,355,850", "0.0798", "all parameters are trained"),
                *("78.6% of the multiply-adds", "+11,200 parameters", "forward and backward:"),
            ],
        ),
    ],
)
def test_counts_savings_and_times_are_printed(run_main: Tool, options: tuple[str, ...], parts: list[str]) -> None:
    mini_vit = ["--model.architecture", "mini_vit", "--num_classes", "10", "--clip.num_frames", "1"]
    size = ["--clip.frame_size", "[48,48]", "--clip.short_side", "52"]
    code, output, errors = run_main(profile_model.main, *mini_vit, *size, *options)
    assert code == 0, errors
    assert [part for part in parts if part not in output] == []
