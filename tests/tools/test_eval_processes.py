"""Two processes of which one takes longer than the other: each waits for the other.

Run as a script, this file is `tools/eval.py`, except that collectives time out after `TIMEOUT_S` seconds, the second
process is slow with each video, and the first one with the report.
"""

import os
import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

from tests.environment import REPOSITORY, launch_command

TIMEOUT_S, VIDEO_S, REPORT_S = 4.0, 0.8, 6.0


def test_processes_wait_longer_than_a_collective(untrained_model, toy, tmp_path):
    copy = Path(shutil.copytree(toy, tmp_path / "toy"))
    sorted((copy / "videos/val").iterdir())[5].unlink()
    command = launch_command("cpu_2_processes", "--quiet", __file__)
    command += ["--checkpoint", str(untrained_model), "--output_dir", str(tmp_path / "report"), "--html", "false"]
    command += ["--data.dataset", "toy", "--data.root", str(copy), "--data.num_workers", "0", "--strict"]
    command += ["--evaluation.batch_size", "1"]  # every video is a batch
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tools")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert "16 videos, 2 processes on CPU" in done.stderr, done.stderr
    assert done.returncode != 0
    assert "exitcode  : 4" in done.stderr
    assert "15 scored, 1 unreadable" in done.stdout
    written = {path.name for path in (tmp_path / "report/val-center").iterdir()}
    assert written >= {"metrics.json", "predictions.csv", "unreadable.csv", "confusion.csv", "confusion.png"}


def slowed(action, seconds):
    def slow(*arguments):
        time.sleep(seconds)
        return action(*arguments)

    return slow


if __name__ == "__main__":
    import eval as tool

    from vidtl.data.dataset import ViewDataset
    from vidtl.runtime import launch
    from vidtl.runtime.signals import run_tool

    launch.PROCESS_GROUP_TIMEOUT = timedelta(seconds=TIMEOUT_S)
    tool.metrics_record = slowed(tool.metrics_record, REPORT_S)
    if os.environ["RANK"] == "1":
        ViewDataset._read = slowed(ViewDataset._read, VIDEO_S)
    run_tool(tool.main)
