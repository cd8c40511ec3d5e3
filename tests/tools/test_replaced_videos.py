"""A training run on a set with a broken video tells at its end what was replaced, by path and by class."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.environment import REPOSITORY


def test_the_summary_tells_replaced_clips_by_class(toy: Path, tiny: list[str], tmp_path: Path) -> None:
    root = Path(shutil.copytree(toy, tmp_path / "toy"))
    broken = sorted((root / "videos/train").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    options = ["--data.root", str(root), "--schedule.length", "1 epoch", "--data.num_workers", "0"]
    repeats = ["--augmentation.repeats", "2", "--output_dir", str(tmp_path / "run")]
    # A process of its own: tests that fork come after this one.
    command = [sys.executable, str(REPOSITORY / "tools/train.py"), *tiny, *options, *repeats]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("unreadable", "replaced"))]
    assert len(told) == 2, done.stdout
    assert broken.name in told[0]
    name = told[1].removeprefix("replaced    class ").removesuffix(": 2 of 8 clips")
    assert f"class {name}: 2 of 8 clips replaced so far" in done.stderr
