"""A training run on a set with a broken video reports at its end what was replaced, by path and by class."""

import shutil
from collections.abc import Callable
from pathlib import Path

import train


def test_the_summary_counts_replaced_clips_by_class(
    run_main: Callable[..., tuple[int, str, str]], toy: Path, tiny: list[str], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(toy, tmp_path / "toy"))
    broken = sorted((root / "videos/train").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    options = ["--data.root", root, "--schedule.length", "1 epoch", "--data.num_workers", "0"]
    code, out, error = run_main(
        train.main, *tiny, *options, "--augmentation.repeats", "2", "--output_dir", tmp_path / "run"
    )
    assert code == 0, error
    reported = [line for line in out.splitlines() if line.startswith(("unreadable", "replaced"))]
    assert len(reported) == 2, out
    assert broken.name in reported[0]
    name = reported[1].removeprefix("replaced    class ").removesuffix(": 2 of 8 clips")
    assert f"class {name}: 2 of 8 clips replaced so far" in error
