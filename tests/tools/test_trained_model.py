"""Which directory an option of a tool stands for, and the run around it."""

import shutil
from pathlib import Path

import pytest
from trained_model import find_model_directory, run_folder, step_of


@pytest.mark.parametrize("given", ["checkpoints/step-00000008", "checkpoints/step-00000008/.", "."])
def test_a_checkpoint_knows_its_run_however_it_is_given(
    untrained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    run = tmp_path / "run"
    checkpoint = shutil.copytree(untrained_model, run / "checkpoints/step-00000008")
    monkeypatch.chdir(checkpoint if given == "." else run)
    directory = find_model_directory(Path(given))
    assert (run_folder(directory).resolve(), step_of(directory)) == (run, 8)
