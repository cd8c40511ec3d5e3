"""Stop signals of a terminal and of batch systems, through every launcher; each run asserts its world size."""

import os
import signal
import sys
import time

import pytest

from tests.environment import ENVIRONMENT, REPOSITORY, launch_command
from tests.training import runs
from tests.training.runs import finish, log_lines, saved_steps, start

STEPS = 12
OURS = [
    *(sys.executable, "-c"),
    "import sys; from processes import start_processes; from vidtl.runtime.signals import run_tool; "
    "sys.argv.pop(0); run_tool(lambda: start_processes(2))",
]
LAUNCHERS = {
    "none": ([sys.executable], 1),
    "accelerate": (launch_command("cpu"), 1),
    "accelerate, 2": (launch_command("cpu_2_processes"), 2),
    "torchrun": ([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"], 2),
    "ours": (OURS, 2),
}


@pytest.fixture
def running(tmp_path, monkeypatch):
    """Start a run that takes its time, and wait for its third step: the process, in a group of its own."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tools")])
    monkeypatch.setattr(runs, "ENVIRONMENT", ENVIRONMENT | {"PYTHONPATH": path})

    def begin(name, **options):
        launcher, count = LAUNCHERS[name]
        options = {"checkpoint_every_steps": 1000, "log_every_steps": 1, "delay_s": 0.5, **options}
        process = start(launcher, tmp_path / "run", processes=count, **options)
        while not (tmp_path / "run/metrics.jsonl").exists() or len(log_lines(tmp_path / "run")) < 3:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        return process

    return begin


def send(process, name, to_all):
    """Signal all processes, as Ctrl-C and Slurm's `--signal=USR1` do, or the command, as `--signal=B:USR1` does."""
    os.killpg(process.pid, signal.Signals[name]) if to_all else process.send_signal(signal.Signals[name])


@pytest.mark.parametrize(
    ("launcher", "name", "to_all"),
    [(launcher, "SIGINT", True) for launcher in LAUNCHERS]
    + [(launcher, "SIGTERM", False) for launcher in ("none", "accelerate, 2", "ours")]
    + [("ours", "SIGUSR1", False)],
)
def test_a_stopped_run_says_so_first_and_keeps_its_step(running, tmp_path, launcher, name, to_all):
    process = running(launcher)
    send(process, name, to_all)
    _, errors = process.communicate(timeout=60)
    assert errors.count(f"stopped by {name}; the same command resumes") == 1, errors
    assert len(saved_steps(tmp_path / "run")) == 1
    assert 3 <= saved_steps(tmp_path / "run")[0] < STEPS
    if launcher in ("none", "ours"):
        assert process.returncode == 128 + signal.Signals[name]
        assert {line.partition(" ")[0] for line in errors.splitlines()} == {f"{name}:", "stopped"}, errors
    else:
        assert errors.index(f"{name}: stopping") < errors.index("Traceback")


@pytest.mark.parametrize(("launcher", "to_all"), [("none", False), ("ours", False), ("ours", True)])
def test_a_warned_run_writes_a_checkpoint_and_goes_on(running, tmp_path, launcher, to_all):
    process = running(launcher, on_sigusr1="checkpoint")
    send(process, "SIGUSR1", to_all)
    assert finish(process)["steps"] == STEPS
    first, *_, last = saved_steps(tmp_path / "run")
    assert first < last == STEPS


def test_a_killed_process_is_named_without_the_traceback_of_the_launcher(running):
    process = running("ours", trouble=("kill", 1, 3))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: process 1 was ended by SIGKILL" in errors.splitlines()
    assert "Traceback" not in errors
