"""An evaluation whose processes are killed, or of which one takes longer than the other.

Run as a script, this file is `tools/eval.py`, except that it records each video that it opens and is slow with it; or,
after `slow`, that collectives time out, the second process is slow with each video, and the first one with the report.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import eval as evaluation
import pytest

from tests.environment import ENVIRONMENT, REPOSITORY, launch_command
from tests.evaluation.prediction_table import read_predictions
from vidtl.data.dataset import ViewDataset

NUM_VIDEOS = 16
PAUSE_S = 0.25
TIMEOUT_S, VIDEO_S, REPORT_S = 4.0, 0.8, 6.0
TOOLS = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tools")])}


def note_opened(journal, pause_s):
    """Write a line of `journal` for each video of an evaluation whose worker opens it: process, record number."""
    read = ViewDataset._read

    def noted(self, index, batch):
        if self.protocol.name != "center":  # of a probe
            with journal.open("a") as stream:
                stream.write(f"{os.getppid()} {index}\n")
            time.sleep(pause_s)
        return read(self, index, batch)

    ViewDataset._read = noted


def journal_lines(journal):
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [(int(process), int(index)) for process, index in map(str.split, lines)]


def recorded(folder):
    """Record numbers in the partial results, each line as it stands there."""
    lines = [line for file in sorted(folder.glob("partial/*/*.jsonl")) for line in file.read_text().split("\n")[:-1]]
    return [json.loads(line)[0] for line in lines]


@pytest.fixture
def options(toy, random_model, tmp_path):
    """Twelve views in batches of 12 clips make every video a batch, with scores of two numbers of tokens."""
    model = random_model(tmp_path / "model", elastic=True)
    return [
        *("--checkpoint", str(model), "--data.dataset", "toy", "--data.root", str(toy), "--tokens", "1,8"),
        *("--data.num_workers", "0", "--training.precision", "fp32"),
        *("--evaluation.protocol", "vivit_4x3", "--evaluation.batch_size", "12", "--html", "false"),
    ]


def start_and_kill(command, journal, folder, num_recorded):
    """Start the tool, kill all its processes once so many videos are recorded, and return those that read."""
    before = len(journal_lines(journal))
    process = subprocess.Popen(command, env=TOOLS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(recorded(folder)) < num_recorded:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    readers = {number for number, _ in journal_lines(journal)[before:]}
    for number in readers | {process.pid}:
        os.kill(number, signal.SIGKILL)
    process.communicate()  # its end of file means that every process has ended
    return readers


def test_killed_twice_and_finished_by_another_number_of_processes(options, run_main, tmp_path, monkeypatch):
    monkeypatch.setattr(ViewDataset, "__getitem__", ViewDataset.__getitem__)  # so that it is undone
    run_main(evaluation.main, *options, "--output_dir", tmp_path / "whole")
    whole = tmp_path / "whole/val-vivit_4x3-tokens-1,8"
    assert not (whole / "partial").exists()
    assert len(set(read_predictions(whole / "tokens-8/predictions.csv").scores[:, 0].tolist())) == NUM_VIDEOS

    journal, folder = tmp_path / "journal", tmp_path / "killed/val-vivit_4x3-tokens-1,8"
    arguments = [__file__, str(journal), *options, "--output_dir", str(tmp_path / "killed")]
    one = [sys.executable, *arguments]
    two = launch_command("cpu_2_processes", "--quiet", *arguments)
    done, in_flight = set(), 0
    for command, num_processes, num_recorded in ((one, 1, 4), (two, 2, 9)):
        opened_before = len(journal_lines(journal))
        readers = start_and_kill(command, journal, folder, num_recorded)
        assert len(readers) == num_processes
        assert not {index for _, index in journal_lines(journal)[opened_before:]} & done
        in_flight += 3 * num_processes  # scored, and decoded ahead
        done = set(recorded(folder))
        assert num_recorded <= len(done) < NUM_VIDEOS
    opened_before = len(journal_lines(journal))
    note_opened(journal, 0)
    _, errors = run_main(evaluation.main, *options, "--output_dir", tmp_path / "killed")
    assert f"{len(done)} of {NUM_VIDEOS} videos were scored before the interruption" in errors
    assert f"evaluating {NUM_VIDEOS}/{NUM_VIDEOS} videos" in errors
    last = [index for _, index in journal_lines(journal)[opened_before:]]
    assert sorted(last) == sorted(set(range(NUM_VIDEOS)) - done)
    assert len(journal_lines(journal)) <= NUM_VIDEOS + in_flight  # only what was under way was opened again
    for name in ("tokens.json", "tokens-1/predictions.csv", "tokens-8/predictions.csv", "tokens-8/metrics.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not (folder / "partial").exists()


def test_processes_wait_longer_than_a_collective(untrained_model, toy, tmp_path):
    copy = Path(shutil.copytree(toy, tmp_path / "toy"))
    sorted((copy / "videos/val").iterdir())[5].unlink()
    command = launch_command("cpu_2_processes", "--quiet", __file__, "slow")
    command += ["--checkpoint", str(untrained_model), "--output_dir", str(tmp_path / "report"), "--html", "false"]
    command += ["--data.dataset", "toy", "--data.root", str(copy), "--data.num_workers", "0", "--strict"]
    command += ["--evaluation.batch_size", "1"]  # every video is a batch
    done = subprocess.run(command, env=TOOLS, capture_output=True, text=True, timeout=200)
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

    from vidtl.runtime import launch
    from vidtl.runtime.signals import run_tool

    mode = sys.argv.pop(1)
    if mode != "slow":
        note_opened(Path(mode), PAUSE_S)
    else:
        launch.PROCESS_GROUP_TIMEOUT = timedelta(seconds=TIMEOUT_S)
        tool.metrics_record = slowed(tool.metrics_record, REPORT_S)
        if os.environ["RANK"] == "1":
            ViewDataset._read = slowed(ViewDataset._read, VIDEO_S)
    run_tool(tool.main)
