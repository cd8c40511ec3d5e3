"""The same batch of clips gives the same run however it is shared: over processes, or one after the other."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.environment import ENVIRONMENT
from tests.training import tiny_run
from tests.training.test_processes import SCRIPT
from tests.training.tiny_run import tiny_config, tiny_model, tiny_train
from vidtl.training.checkpoint import EMA, MODEL, newest_valid

LAUNCH = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]
STEPS = 24


def in_two_processes(output_dir, **options):
    options = {"processes": 2, "dropout": False, "batch_size": 4, "log_every_steps": 1, **options}
    command = [*LAUNCH, SCRIPT, str(output_dir), json.dumps(options)]
    finished = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1])["steps"] == STEPS
    return lines(output_dir)


def lines(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_two_halves_and_one_double_batch_are_one_run(tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)
    processes = in_two_processes(tmp_path / "processes")
    assert len(processes) == STEPS
    for accumulation_steps in (1, 2):
        output_dir = tmp_path / str(accumulation_steps)
        config = tiny_config(batch_size=4, log_every_steps=1, accumulation_steps=accumulation_steps)
        tiny_train(output_dir, config, accelerator)
        own = lines(output_dir)
        assert [line["loss"] for line in own] == pytest.approx([line["loss"] for line in processes], abs=1e-5)
        assert [line["learning_rate"] for line in own] == [line["learning_rate"] for line in processes]


def test_a_probe_with_an_average_runs_in_two_processes(tmp_path):
    """Parameters without gradient take no part in the exchange, and nobody waits for them."""
    in_two_processes(tmp_path / "run", trainable=["head"], ema_decay=0.9)
    checkpoint = newest_valid(tmp_path / "run" / "checkpoints")
    start, trained = tiny_model().state_dict(), load_file(checkpoint / MODEL)
    averaged = load_file(checkpoint / EMA / MODEL)
    assert {name for name in start if not torch.equal(start[name], trained[name])} == {"head.weight", "head.bias"}
    assert {name for name in start if not torch.equal(averaged[name], trained[name])} == {"head.weight", "head.bias"}
