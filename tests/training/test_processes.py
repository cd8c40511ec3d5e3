"""Runs of several real processes, as replicas (DDP), shards (FSDP2), and on two machines; each asserts its world size.

Three replicas, because sums of two do not depend on their order, and rounding in another order is what to look for.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tests.environment import ENVIRONMENT, launch_command, wait_for
from tests.training import runs
from tests.training.runs import are_equal, checkpoint_of, cut_back, finish, log_lines, start
from tests.training.tiny_run import tiny_config, tiny_model, tiny_train, uneven_evaluation
from vidtl.training.checkpoint_directory import EMA, MODEL, checkpoint_step, newest_valid

PROCESSES = 3
STEPS = 16
OPTIONS = {"batch_size": 6, "log_every_steps": 1}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(PROCESSES)]
REPLICAS = launch_command("cpu_2_processes", "--num_processes", str(PROCESSES))
SHARDS = launch_command("fsdp_cpu_2_processes")


def start_three(launcher, folder, **options):
    return start(launcher, folder, processes=PROCESSES, dropout=False, **{**OPTIONS, **options})


def assert_same_log(one, other):
    assert len(log_lines(one)) == len(log_lines(other)) >= STEPS
    for a, b in zip(log_lines(one), log_lines(other), strict=True):
        for name in a.keys() & {"loss", "accuracy", "grad_norm", "learning_rate", "top1"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a, b)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(start_three(REPLICAS, folder)) == {"steps": STEPS, "resumed": 0, "form": "MULTI_CPU"}
    return folder


@pytest.mark.usefixtures("no_dropout")
@pytest.mark.parametrize("accumulation_steps", [1, PROCESSES])
def test_three_processes_train_as_one(unbroken, tmp_path, accelerator, accumulation_steps):
    tiny_train(tmp_path, tiny_config(accumulation_steps=accumulation_steps, **OPTIONS), accelerator)
    assert_same_log(tmp_path, unbroken)


def test_a_terminated_run_saves_its_step_and_resumes_bitwise(unbroken, tmp_path):
    folder = tmp_path / "run"
    process = start_three(TORCHRUN, folder, delay_s=0.5, checkpoint_every_steps=1000)
    for index in range(PROCESSES):
        wait_for(tmp_path / f"started-{index}", process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("stopped by SIGTERM") == 1
    checkpoint = newest_valid(folder / "checkpoints")
    step = checkpoint_step(checkpoint)
    assert 1 <= step < STEPS
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in load_file(checkpoint / MODEL))
    assert finish(start_three(TORCHRUN, folder)) == {"steps": STEPS, "resumed": step, "form": "MULTI_CPU"}
    assert are_equal(checkpoint_of(folder, STEPS), checkpoint_of(unbroken, STEPS))


@pytest.mark.parametrize(
    ("adapted", "expected"),
    [
        ({"trainable": ["head"]}, {"head.weight", "head.bias"}),
        ({"lora": 2}, {"hidden.weight", "head.weight", "head.bias"}),
    ],
)
def test_a_probe_and_adapters_run_with_an_average_in_two_processes(tmp_path, adapted, expected):
    """Parameters without gradient take no part in the exchange."""
    options = {**adapted, "ema_decay": 0.9, **OPTIONS}
    finish(start(launch_command("cpu_2_processes"), tmp_path / "run", processes=2, **options))
    checkpoint = newest_valid(tmp_path / "run" / "checkpoints")
    before = tiny_model().state_dict()
    for file in (MODEL, f"{EMA}/{MODEL}"):
        after = load_file(checkpoint / file)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == expected


@pytest.mark.usefixtures("no_dropout")
def test_sharded_and_whole_runs_resume_each_other_in_another_number_of_processes(tmp_path, accelerator):
    options = {**OPTIONS, "ema_decay": 0.9, "checkpoint_every_steps": 4}
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"

    def train_whole(folder):
        return tiny_train(folder, tiny_config(**options), accelerator, uneven_evaluation(accelerator))[0]

    def train_sharded(folder):
        return finish(start(SHARDS, folder, processes=2, dropout=False, evaluates=True, **options))

    train_whole(whole)
    assert train_sharded(sharded) == {"steps": STEPS, "resumed": 0, "form": "FSDP"}
    assert_same_log(whole, sharded)
    tensors = (runs.tensors_of(checkpoint_of(folder, 12)) for folder in (whole, sharded))
    torch.testing.assert_close(*tensors, rtol=1e-4, atol=1e-6)
    assert train_whole(cut_back(sharded, tmp_path / "from_sharded", 8)).resumed_step == 8
    assert_same_log(whole, tmp_path / "from_sharded")
    assert train_sharded(cut_back(whole, tmp_path / "from_whole", 8))["resumed"] == 8
    assert_same_log(whole, tmp_path / "from_whole")


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)


@pytest.fixture
def machines():
    """Two network namespaces joined by a virtual cable: name and network interface of each."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (Debian: apt install iproute2)")
    pairs = [(f"vidtl-{os.getpid()}-{number}", f"vidtl{number}") for number in range(2)]
    try:
        for name, _ in pairs:
            ip("netns", "add", name)
        (name, end), (other, other_end) = pairs
        ip("link", "add", end, "netns", name, "type", "veth", "peer", "name", other_end, "netns", other)
        for number, (name, end) in enumerate(pairs):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield pairs
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs the right to make network namespaces: {error.stderr.strip()}")
    finally:
        for name, _ in pairs:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.usefixtures("no_dropout")
def test_two_machines_train_as_one_process(machines, tmp_path, accelerator, monkeypatch):
    folder = tmp_path / "two" / "run"
    folder.parent.mkdir()
    processes = []
    for rank, (namespace, end) in enumerate(machines):
        monkeypatch.setattr(runs, "ENVIRONMENT", {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": end})
        launcher = launch_command("gpu_2x8", "--num_processes", "2", "--machine_rank", str(rank))
        launcher += ["--main_process_ip", "10.77.0.1", "--main_process_port", "29500"]
        options = {"processes": 2, "dropout": False, "evaluates": True, **OPTIONS}
        processes.append(start(["ip", "netns", "exec", namespace, *launcher], folder, **options))
    try:
        ends = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ends
    tiny_train(tmp_path / "one", tiny_config(**OPTIONS), accelerator, uneven_evaluation(accelerator))
    assert_same_log(folder, tmp_path / "one")
