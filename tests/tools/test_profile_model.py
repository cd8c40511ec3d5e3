"""Counts, savings and times; tests/models/test_complexity.py has the counts."""

import profile_model
import pytest


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
def test_counts_savings_and_times_are_printed(run_main, options, parts):
    mini_vit = ["--model.architecture", "mini_vit", "--num_classes", "10", "--clip.num_frames", "1"]
    size = ["--clip.frame_size", "[48,48]", "--clip.short_side", "52"]
    output, _ = run_main(profile_model.main, *mini_vit, *size, *options)
    assert [part for part in parts if part not in output] == []
