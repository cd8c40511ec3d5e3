"""Which directory an option of a tool stands for, and the run around it."""

import shutil
from pathlib import Path

import pytest
from trained_model import find_model_directory, run_folder, step_of


@pytest.mark.parametrize(
    ("at", "given"),
    [
        (".", "checkpoints/step-00000008"),
        ("checkpoints", "step-00000008"),
        ("checkpoints", "./step-00000008"),
        ("checkpoints/step-00000008", "."),
        ("checkpoints/step-00000008", "../step-00000008"),
    ],
)
def test_a_checkpoint_knows_its_run_from_wherever_it_is_given(
    untrained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, given: str
) -> None:
    shutil.copytree(untrained_model, tmp_path / "run/checkpoints/step-00000008")
    monkeypatch.chdir(tmp_path / "run" / at)
    directory = find_model_directory(Path(given))
    assert (run_folder(directory).resolve(), step_of(directory)) == (tmp_path / "run", 8)
