"""`tools/prepare.py --transcode`: what is refused before any work, and arrays of jobs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import prepare

from vidtl.data.manifest import default_file

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


def test_parts_are_joined_all_or_none_and_again(toy: Path, tmp_path: Path, run_main: Run) -> None:
    root, fast = tmp_path / "root", tmp_path / "fast"
    shutil.copytree(toy, root)
    options = ["--dataset", "toy", "--root", root, "--splits", "val", "--workers", 1, "--transcode", fast]
    assert run_main(prepare.main, *options[:-2], "--shard", "1/2")[0] == 0
    assert run_main(prepare.main, *options, "--shard", "2/2")[0] == 0
    for _ in range(2):
        code, _, err = run_main(prepare.main, *options, "--merge")
        assert code == 2
        assert f"{fast / '.vidtl'}: 1 of 2 parts are missing: 1; run --shard 1/2" in err
    assert not default_file(root).exists()
    assert run_main(prepare.main, *options, "--shard", "1/2")[0] == 0
    written = []
    for _ in range(2):
        code, out, err = run_main(prepare.main, *options, "--merge")
        assert code == 0, err
        assert "16 of 16 files" in out
        written.append([default_file(folder).read_bytes() for folder in (root, fast)])
    assert written[0] == written[1]
    # What an interrupted merge leaves: one folder joined, the other one not, and the missing job done again.
    assert run_main(prepare.main, *options, "--shard", "2/2")[0] == 0
    code, out, _ = run_main(prepare.main, *options, "--merge")
    assert code == 0
    assert f"parts of 2 that are missing: 1; their files are as {default_file(root)} has them" in out
