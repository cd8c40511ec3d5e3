"""Runs of several real processes; each asserts its world size before anything else.

Three of them, because sums of two do not depend on their order, and rounding in another order is what to look for.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.environment import ENVIRONMENT
from tests.training import tiny_run
from tests.training.tiny_run import tiny_config, tiny_train
from vidtl.training.checkpoint import MODEL, OPTIMIZER, checkpoint_step, list_checkpoints, newest_valid

PROCESSES = 3
BATCH_SIZE = 6
STEPS = 16
SCRIPT = str(Path(tiny_run.__file__))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(PROCESSES)]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(PROCESSES)),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]


def start(launcher, output_dir, **options):
    options = {"processes": PROCESSES, "batch_size": BATCH_SIZE, "dropout": False, **options}
    arguments = [*launcher, SCRIPT, str(output_dir), json.dumps(options)]
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def losses(output_dir):
    return [json.loads(line)["loss"] for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(start(ACCELERATE, output_dir, log_every_steps=1)) == {
        "steps": STEPS,
        "resumed": 0,
        "form": "MULTI_CPU",
    }
    return output_dir


def test_equals_one_process_with_accumulation_and_with_a_larger_batch(unbroken, tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)
    expected = losses(unbroken)
    assert len(expected) == STEPS
    for accumulation_steps in (1, PROCESSES):
        output_dir = tmp_path / str(accumulation_steps)
        config = tiny_config(batch_size=BATCH_SIZE, log_every_steps=1, accumulation_steps=accumulation_steps)
        tiny_train(output_dir, config, accelerator)
        assert losses(output_dir) == pytest.approx(expected, rel=1e-5)


def test_a_terminated_run_saves_its_step_and_goes_on_bitwise(unbroken, tmp_path):
    output_dir = tmp_path / "run"
    process = start(TORCHRUN, output_dir, delay_s=0.5, checkpoint_every_steps=1000)
    started = time.monotonic()
    while not all((tmp_path / f"started-{index}").exists() for index in range(PROCESSES)):
        assert time.monotonic() - started < 60
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.count("stopped by SIGTERM; the same command goes on from the last checkpoint\n") == 1
    checkpoint = newest_valid(output_dir / "checkpoints")
    assert checkpoint is not None
    step = checkpoint_step(checkpoint)
    assert 1 <= step < STEPS
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in load_file(checkpoint / MODEL))

    assert finish(start(TORCHRUN, output_dir)) == {"steps": STEPS, "resumed": step, "form": "MULTI_CPU"}
    for name in (MODEL, OPTIMIZER):
        once, resumed = (load_file(run / "checkpoints" / f"step-{STEPS:08d}" / name) for run in (unbroken, output_dir))
        assert once.keys() == resumed.keys()
        assert all(torch.equal(once[key], resumed[key]) for key in once)


def test_another_number_of_processes_goes_on_with_the_same_losses(unbroken, tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)
    output_dir = tmp_path / "run"
    shutil.copytree(unbroken, output_dir)
    for directory in list_checkpoints(output_dir / "checkpoints"):
        if checkpoint_step(directory) > 6:
            shutil.rmtree(directory)
    config = tiny_config(batch_size=BATCH_SIZE, log_every_steps=1)
    summary, _ = tiny_train(output_dir, config, accelerator)  # 3 processes before, 1 now
    assert summary.resumed_step == 6
    assert losses(output_dir) == pytest.approx(losses(unbroken), rel=1e-5)
