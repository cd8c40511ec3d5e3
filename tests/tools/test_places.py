"""Places where runs differ from the usual: sets without a validation split, small machines, other paths."""

import json
from pathlib import Path

import pytest
import train

from tests.environment import REPOSITORY, RunMain
from tests.refusals import assert_refusal
from vidtl.training.run_directory import RunDirectory


@pytest.fixture
def without_validation(toy: Path, tiny: list[str], tmp_path: Path) -> list[str | Path]:
    """Options of a run of two steps on a set with the splits `train` and `test`."""
    text = (
        (REPOSITORY / "datasets/toy/dataset.yaml")
        .read_text()
        .replace("  val:", "  test:")
        .replace("classes: classes.txt", "")
    )
    (tmp_path / "dataset.yaml").write_text(text)
    data = ["--data.dataset", tmp_path, "--data.root", toy, "--data.num_workers", "0"]
    return [*tiny, *data, "--schedule.length", "2 steps", "--schedule.warmup", "0 steps", "--training.trackers", "[]"]


def test_a_set_without_validation_split_trains(
    run_main: RunMain, without_validation: list[str | Path], tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    output, errors = run_main(train.main, *without_validation, "--output_dir", run.path)
    (warning,) = (line for line in errors.splitlines() if line.startswith("WARNING"))
    assert "data.eval_split" in warning
    assert "train, test" in warning
    assert "best" not in output
    summary = json.loads(run.summary_file.read_text())
    assert (summary["results"]["best"], summary["results"]["metrics"]) == (None, {})
    assert summary["data"]["videos"] == {"train": 32, "evaluation": 0}
    assert (run.path / "curves.png").is_file()
    assert (run.checkpoints / "step-00000002").is_dir()


@pytest.mark.parametrize(
    "option",
    [
        ("--data.eval_split", "val"),
        ("--training.best_metric", "top1"),
        ("--training.early_stop_evaluations", "3"),
        ("--data.train_split", ""),
    ],
)
def test_settings_that_need_a_validation_split_are_refused_without_one(
    run_main: RunMain, without_validation: list[str | Path], tmp_path: Path, option: tuple[str, str]
) -> None:
    _, errors = run_main(train.main, *without_validation, *option, "--output_dir", tmp_path / "run", code=2)
    key, value = option[0].removeprefix("--"), option[1]
    assert_refusal(errors.splitlines()[-1], *([key, value] if key.startswith("training") else [repr(value)]))
    assert not (tmp_path / "run").exists()
