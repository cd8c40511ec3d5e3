"""`tools/prepare.py --transcode`: what is refused before any work, and arrays of jobs."""

from collections.abc import Callable
from pathlib import Path

import prepare

Run = Callable[..., tuple[int, str, str]]


def test_files_that_are_no_copies_are_never_replaced(toy: Path, tmp_path: Path, run_main: Run) -> None:
    own = tmp_path / "own" / next((toy / "videos/val").iterdir()).relative_to(toy)
    own.parent.mkdir(parents=True)
    own.write_text("the only copy of it")
    options = ["--dataset", "toy", "--root", toy, "--output", tmp_path / "scan", "--transcode", tmp_path / "own"]
    code, _, err = run_main(prepare.main, *options)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{tmp_path / 'own'} is not empty and holds no copies; allowed: a new or empty folder" in err
    assert own.read_text() == "the only copy of it"
    assert not (tmp_path / "scan").exists()
