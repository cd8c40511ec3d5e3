"""Two machines, as far as one can be two: a process each in two network namespaces that only a virtual cable joins."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.training import tiny_run
from tests.training.tiny_run import tiny_config, tiny_train

OPTIONS = {"batch_size": 6, "log_every_steps": 1}


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)


@pytest.fixture
def machines():
    """Names of two namespaces and of the cable's end in each."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (Debian: apt install iproute2)")
    names = [f"vidtl-{os.getpid()}-{number}" for number in range(2)]
    ends = ["vidtl0", "vidtl1"]
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
            for number, (name, end) in enumerate(zip(names, ends, strict=True)):
                ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs the right to make network namespaces: {error.stderr.strip()}")
        yield list(zip(names, ends, strict=True))
    finally:
        for name in made:
            ip("netns", "del", name)


def start(namespace, end, rank, output_dir):
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(REPOSITORY / "configs/accelerate/gpu_2x8.yaml"), "--num_processes", "2"]
    command += ["--machine_rank", str(rank), "--main_process_ip", "10.77.0.1", "--main_process_port", "29500"]
    command += [str(Path(tiny_run.__file__)), str(output_dir)]
    command += [json.dumps({**OPTIONS, "processes": 2, "dropout": False, "evaluates": True})]
    environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": end}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def losses(output_dir):
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_two_machines_train_as_one_process(machines, tmp_path, accelerator, monkeypatch):
    output_dir = tmp_path / "two" / "run"
    output_dir.parent.mkdir()
    processes = [start(*machine, rank, output_dir) for rank, machine in enumerate(machines)]
    try:
        ends = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ends
    assert json.loads(ends[0][0].splitlines()[-1])["form"] == "MULTI_CPU"

    monkeypatch.setattr(tiny_run, "DROPOUT", False)
    tiny_train(tmp_path / "one", tiny_config(**OPTIONS), accelerator)
    assert len(losses(output_dir)) == 16
    assert losses(output_dir) == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
