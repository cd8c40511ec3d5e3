"""Two processes of which one takes longer than the other: each waits for what the other still has to do.

Run as a script, this file is `tools/eval.py`, except that processes give up waiting in a collective after
`TIMEOUT_S` seconds, the second one takes its time over each video, and the first one over its report.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.environment import REPOSITORY

TIMEOUT_S = 5.0
NUM_VIDEOS = 16


def evaluate_in_two(options: list[str], video_s: float, report_s: float) -> subprocess.CompletedProcess[str]:
    config = str(REPOSITORY / "configs/accelerate/cpu_2_processes.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", config]
    command += [__file__, str(video_s), str(report_s), *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tools")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert f"{NUM_VIDEOS} videos, 2 process(es)" in done.stderr, done.stderr  # the launcher really started so many
    return done


@pytest.fixture
def options(untrained_model: Path, toy: Path, tmp_path: Path) -> list[str]:
    """Batches of one clip make every video a group of its own."""
    data = ["--data.dataset", "toy", "--data.root", str(toy), "--data.num_workers", "0"]
    some = ["--evaluation.batch_size", "1", "--html", "false", "--output_dir", str(tmp_path / "report")]
    return ["--checkpoint", str(untrained_model), *data, *some]


def test_a_process_that_is_done_waits_longer_than_a_collective(options: list[str], tmp_path: Path) -> None:
    done = evaluate_in_two(options, video_s=1.5 * TIMEOUT_S / (NUM_VIDEOS / 2), report_s=0)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "report/val-center/metrics.json").read_text())
    assert record["num_scored"] == NUM_VIDEOS


def test_strict_ends_after_the_report_is_written(options: list[str], toy: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy, tmp_path / "toy"))
    sorted((copy / "videos/val").iterdir())[5].unlink()
    done = evaluate_in_two([*options, "--data.root", str(copy), "--strict"], video_s=0, report_s=8)
    assert done.returncode != 0
    assert "exitcode  : 4" in done.stderr
    assert "15 scored, 1 unreadable" in done.stdout
    written = {path.name for path in (tmp_path / "report/val-center").iterdir()}
    assert written >= {"metrics.json", "predictions.csv", "unreadable.csv", "confusion.csv", "confusion.png"}


def slowed(action, seconds: float):
    def slow(*arguments):
        time.sleep(seconds)
        return action(*arguments)

    return slow


if __name__ == "__main__":
    video_s, report_s = (float(sys.argv.pop(1)) for _ in range(2))
    import eval as tool

    from vidtl.data.dataset import ViewDataset
    from vidtl.runtime import launch
    from vidtl.runtime.signals import run_tool

    launch.PROCESS_GROUP_TIMEOUT = timedelta(seconds=TIMEOUT_S)
    tool.metrics_record = slowed(tool.metrics_record, report_s)
    if os.environ["RANK"] == "1":
        ViewDataset.__getitem__ = slowed(ViewDataset.__getitem__, video_s)
    run_tool(tool.main)
