"""A training run on a set with a broken video tells at its end what was replaced, by path and by class."""

import shutil
from collections.abc import Callable
from pathlib import Path


def test_the_summary_tells_replaced_clips_by_class(
    run_main: Callable[..., tuple[int, str, str]], toy: Path, tiny: list[str], tmp_path: Path
) -> None:
    import train

    root = Path(shutil.copytree(toy, tmp_path / "toy"))
    broken = sorted((root / "videos/train").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    options = ["--data.root", root, "--schedule.length", "1 epoch", "--data.num_workers", "0"]
    repeats = ["--augmentation.repeats", "2", "--output_dir", tmp_path / "run"]
    code, output, errors = run_main(train.main, *tiny, *options, *repeats)
    assert code == 0, errors
    told = [line for line in output.splitlines() if line.startswith(("unreadable", "replaced"))]
    assert len(told) == 2, output
    assert broken.name in told[0]
    name = told[1].removeprefix("replaced    class ").removesuffix(": 2 of 8 clips")
    assert f"class {name}: 2 of 8 clips replaced so far" in errors
