"""Processes that die or hang: the others end, and the first cause is reported once."""

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.environment import launch_command, wait_for
from tests.refusals import assert_refusal
from tests.training.runs import log_lines, start
from vidtl.runtime.watchdog import Activity, HangDetector, Heartbeat
from vidtl.training.checkpoint_directory import checkpoint_step, newest_valid


def beat(rank, beat=0, step=0, activity=Activity.READING, moves=0):
    return Heartbeat(rank, f"host{rank}", 100 + rank, beat, step, activity, moves)


def test_no_heartbeat_is_a_hang_even_while_others_move():
    detector = HangDetector(10.0, 0.0)
    assert all(detector.check([beat(0, s), beat(1, s, moves=s)], s) is None for s in range(100))
    detector = HangDetector(10.0, 0.0)
    for second in range(11):
        assert detector.check([beat(0, second, second, moves=second), beat(1, min(second, 1))], second) is None
    problem = detector.check([beat(0, 12, 12, moves=12), beat(1, 1, step=3)], 12.0)
    assert_refusal(problem, "no heartbeat for 10 s", "process 1 (pid 101 on host1)", "step 3")
    assert "process 0" not in problem


@pytest.mark.parametrize(
    ("ahead", "behind"),
    [
        (Activity.REDUCING, Activity.READING),
        (Activity.COMPUTING, Activity.SAVING),  # a checkpoint and an evaluation come before the next step
        (Activity.COMPUTING, Activity.EVALUATING),
        (Activity.READING, Activity.READING),
    ],
)
def test_the_processes_furthest_behind_are_named_when_nothing_moves(ahead, behind):
    detector = HangDetector(10.0, 0.0)
    beats = [beat(0, 0, 7, ahead, 50), beat(1, 0, 7, behind, 90), beat(2, 0, 7, ahead, 50)]
    for second in range(11):
        assert detector.check([replace(each, beat=second) for each in beats], second) is None
    problem = detector.check([replace(each, beat=11) for each in beats], 11.0)
    assert_refusal(problem, "process 1 (pid 101 on host1)", "step 7", behind.text)
    assert ("process 0 (pid 100" in problem) == ("any process" in problem) == (ahead is behind)


def run_in_trouble(folder, trouble, **options):
    options = {"processes": 2, "batch_size": 6, "trouble": (trouble, 1, 5), **options}
    return start(launch_command("cpu_2_processes"), folder / "run", **options)


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ("sleep", r"no progress for 5 s; the others wait for process 1 \(pid \d+ on \S+\), after step 5, waiting for"),
        ("freeze", r"no heartbeat for 5 s from process 1 \(pid \d+ on \S+\), after step \d"),
    ],
)
def test_a_process_that_hangs_ends_the_run_and_is_named_once(tmp_path, trouble, expected):
    process = run_in_trouble(tmp_path, trouble, hang_timeout_s=5.0, delay_s=0.3)
    errors = ""
    deadline = time.monotonic() + 100
    while "error: no " not in errors:
        assert time.monotonic() < deadline, errors
        errors += process.stderr.readline()
    assert re.search("error: " + expected, errors), errors
    pid = int(re.search(r"pid (\d+)", errors)[1])
    if trouble == "freeze":
        os.kill(pid, signal.SIGKILL)  # the launcher would wait 30 s for a frozen process
    _, rest = process.communicate(timeout=60)
    assert process.returncode != 0
    assert (errors + rest).count("error: no ") == 1
    stacks = {path.name: path.read_text() for path in (tmp_path / "run" / "stacks").iterdir()}
    assert stacks.keys() == {"process-0.txt", "process-1.txt"} - ({"process-1.txt"} if trouble == "freeze" else set())
    assert ("in make_trouble" in stacks.get("process-1.txt", "")) == (trouble == "sleep")


def test_a_signal_that_ends_the_launcher_still_leaves_a_checkpoint_of_the_step(tmp_path):
    """Batch systems send SIGUSR1 to all processes; one of them waits for the other in a C++ call."""
    process = run_in_trouble(tmp_path, "pause", checkpoint_every_steps=1000, log_every_steps=1)
    wait_for(tmp_path / "run/metrics.jsonl", process)
    while len(log_lines(tmp_path / "run")) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(0.5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)  # until no process has stderr any more
    assert process.returncode == -signal.SIGUSR1
    assert "error: " not in errors
    assert checkpoint_step(newest_valid(tmp_path / "run/checkpoints")) == 6


@pytest.mark.parametrize(("trouble", "cause"), [("raise", "ValueError: trouble"), ("kill", "SIGKILL")])
def test_a_process_that_dies_ends_the_run_and_the_cause_is_reported(tmp_path, trouble, cause):
    process = run_in_trouble(tmp_path, trouble)
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert cause in errors
    assert "Connection closed by peer" not in errors  # what follows from it in the other process
