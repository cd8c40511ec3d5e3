"""The papers' table as JSON with a step of each model, frozen parameters, and options that would do nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import profile_model
import pytest

Tool = Callable[..., tuple[int, str, str]]


def test_rows_are_printed_and_written_with_a_step_of_each(run_main: Tool, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    code, output, errors = run_main(profile_model.main, "--table", "mini_vit", "--step", "--output", file)
    assert code == 0, errors
    report = json.loads(file.read_text())
    assert report["command"].startswith("python tools/profile_model.py")
    assert set(report["versions"]) == {"python", "torch", "vidtl"}
    assert report["step"]["batch"] == 2
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["mini-ViT 8at3"]["parameters"] == 1_355_850
    assert rows["mini-ViT 8at3"]["published_gmacs"] == 0.0153
    for row in rows.values():
        assert row["step"]["finite"]
        assert f"{row['step']['tensors_with_gradient']}/{row['step']['tensors']}" in output
        assert row["name"] in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step"], "--step belongs to --table"),
        (["--table", "mini_vit", "--time", "--batch", "7"], "--batch does nothing with --table"),
        (["--table", "mini_vit", "--model.size=L"], "--model.size does nothing with --table"),
        (["--table", "mini_vit", "--output", "."], "--output is ., a folder; allowed: a file"),
        (["--batch", "2"], "--batch belongs to --time"),
        (["--time", "--batch", "0"], "--batch is 0; allowed: 1 or more"),
        (["--time", "--batch", "-1"], "--batch is -1; allowed: 1 or more"),
        (["--time", "--rounds", "0"], "--rounds is 0; allowed: 1 or more"),
        (["--output", "rows.json"], "--output belongs to --table"),
        (["--table", "t2t_vit", "--output", "no/such/rows.json"], "the folder no/such does not exist"),
        (["--table", "t2t"], "t2t_vit"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run_main: Tool, options: list[str], message: str) -> None:
    code, _, errors = run_main(profile_model.main, *options)
    assert code == 2
    assert message in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "all parameters are trained"),
        (("--training.trainable", "['head']"), "parameters without gradient: 1,354,560"),
    ],
)
def test_frozen_parameters_are_told(run_main: Tool, options: tuple[str, ...], line: str) -> None:
    mini_vit = ["--model.architecture", "mini_vit", "--num_classes", "10", "--clip.num_frames", "1"]
    size = ["--clip.frame_size", "[48,48]", "--clip.short_side", "52"]
    code, output, errors = run_main(profile_model.main, *mini_vit, *size, *options)
    assert code == 0, errors
    assert line in output
