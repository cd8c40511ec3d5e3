"""The papers' table: as JSON with a step of each model, and options that would do nothing."""

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
        (["--output", "rows.json"], "--output belongs to --table"),
        (["--table", "t2t_vit", "--output", "no/such/rows.json"], "the folder no/such does not exist"),
        (["--table", "t2t"], "t2t_vit"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run_main: Tool, options: list[str], message: str) -> None:
    code, _, errors = run_main(profile_model.main, *options)
    assert code == 2
    assert message in errors.splitlines()[-1]
