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
    ("options", "line"),
    [
        ((), "all parameters are trained"),
        (("--training.trainable", "['head']"), "parameters without gradient: 1,354,560"),
    ],
)
def test_frozen_parameters_are_counted(run_main: Tool, options: tuple[str, ...], line: str) -> None:
    mini_vit = ["--model.architecture", "mini_vit", "--num_classes", "10", "--clip.num_frames", "1"]
    size = ["--clip.frame_size", "[48,48]", "--clip.short_side", "52"]
    code, output, errors = run_main(profile_model.main, *mini_vit, *size, *options)
    assert code == 0, errors
    assert line in output
