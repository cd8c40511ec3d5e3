"""Processes that die or hang: the others end, and the first cause is told once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.training import tiny_run
from vidtl.runtime.watchdog import Activity, Judge, SignOfLife
from vidtl.training.checkpoint import checkpoint_step, newest_valid

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file"]
LAUNCH += [str(REPOSITORY / "configs/accelerate/cpu_2_processes.yaml"), str(Path(tiny_run.__file__))]


def sign(rank, beat=0, step=0, activity=Activity.READING, moves=0):
    return SignOfLife(rank, f"host{rank}", 100 + rank, beat, step, activity, moves)


def test_no_sign_of_life_is_a_hang_even_while_others_move():
    judge = Judge(10.0, 0.0)
    for second in range(11):
        assert judge.verdict([sign(0, second, second, moves=second), sign(1, min(second, 1))], second) is None
    verdict = judge.verdict([sign(0, 12, 12, moves=12), sign(1, 1, step=3)], 12.0)
    assert verdict.startswith("no sign of life for 10 s from process 1 (pid 101 on host1), after step 3, waiting for")


def test_the_one_furthest_behind_is_named_when_nothing_moves():
    judge = Judge(10.0, 0.0)
    ahead, behind = (
        {"step": 7, "activity": Activity.COMPARING, "moves": 50},
        {"step": 7, "activity": Activity.READING, "moves": 90},
    )
    for second in range(11):
        assert (
            judge.verdict([sign(0, second, **ahead), sign(1, second, **behind), sign(2, second, **ahead)], second)
            is None
        )
    verdict = judge.verdict([sign(0, 11, **ahead), sign(1, 11, **behind), sign(2, 11, **ahead)], 11.0)
    assert verdict == (
        "no progress for 10 s; the others wait for process 1 (pid 101 on host1), after step 7, waiting for clips"
    )


@pytest.mark.parametrize("late", [Activity.SAVING, Activity.EVALUATING])
def test_a_checkpoint_or_an_evaluation_comes_before_the_next_step(late):
    judge = Judge(10.0, 0.0)
    signs = [sign(0, step=10, activity=late), sign(1, step=10, activity=Activity.COMPUTING)]
    assert judge.verdict(signs, 0.0) is None
    verdict = judge.verdict([replace(each, beat=1) for each in signs], 11.0)
    assert verdict.startswith("no progress for 10 s; the others wait for process 0 (pid 100 on host0), after step 10, ")


def test_all_at_the_same_place_are_all_named():
    judge = Judge(10.0, 0.0)
    judge.verdict([sign(0), sign(1)], 0.0)
    verdict = judge.verdict([sign(0, 1), sign(1, 1)], 11.0)
    assert "in any process: process 0 (pid 100" in verdict
    assert "process 1 (pid 101" in verdict


def test_whoever_moves_keeps_the_run_alive():
    judge = Judge(10.0, 0.0)
    assert all(judge.verdict([sign(0, s), sign(1, s, moves=s)], s) is None for s in range(100))


def run_in_trouble(folder, trouble, **options):
    options = {"processes": 2, "batch_size": 6, "trouble": (trouble, 1, 5), **options}
    return subprocess.Popen(
        [*LAUNCH, str(folder / "run"), json.dumps(options)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("sleep", r"no progress for 5 s; the others wait for process 1 \(pid \d+ on \S+\), after step 5, waiting for"),
        ("freeze", r"no sign of life for 5 s from process 1 \(pid \d+ on \S+\), after step \d, \S.* when"),
    ],
)
def test_a_process_that_hangs_ends_the_run_and_is_named_once(tmp_path, trouble, told):
    process = run_in_trouble(tmp_path, trouble, hang_timeout_s=5.0, delay_s=0.3)
    errors, pid = "", 0
    deadline = time.monotonic() + 100
    while "error: no " not in errors:
        assert time.monotonic() < deadline, errors
        errors += process.stderr.readline()
    assert re.search("error: " + told, errors), errors
    pid = int(re.search(r"pid (\d+)", errors)[1])
    if trouble == "freeze":
        os.kill(pid, signal.SIGKILL)  # the launcher asks it to end, which it cannot hear, and would wait for 30 s
    _, rest = process.communicate(timeout=60)
    assert process.returncode != 0
    assert (errors + rest).count("error: no ") == 1
    stacks = sorted(path.name for path in (tmp_path / "run" / "stacks").iterdir())
    assert stacks == (["process-0.txt"] if trouble == "freeze" else ["process-0.txt", "process-1.txt"])
    if trouble == "sleep":
        assert "in make_trouble" in (tmp_path / "run/stacks/process-1.txt").read_text()


def test_a_signal_that_ends_the_launcher_still_leaves_a_checkpoint_of_the_step(tmp_path):
    """Batch systems send SIGUSR1 to all processes; one of these waits for the other in a call out of Python's reach."""
    process = run_in_trouble(tmp_path, "pause", checkpoint_every_steps=1000, log_every_steps=1)
    log = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 100
    while not log.exists() or len(log.read_text().splitlines()) < 5:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
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


@pytest.mark.parametrize(("trouble", "told"), [("raise", "ValueError: trouble of its own making"), ("kill", "SIGKILL")])
def test_a_process_that_dies_ends_the_run_and_the_cause_is_told(tmp_path, trouble, told):
    process = run_in_trouble(tmp_path, trouble)
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert told in errors
    assert "Connection closed by peer" not in errors  # what follows from it in the other process
