"""A model that two processes share out (FSDP2) trains as one that is whole, and their checkpoints are alike."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training import tiny_run
from tests.training.tiny_run import tiny_config, tiny_train, uneven_evaluation
from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER, checkpoint_step, list_checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = {"batch_size": 6, "log_every_steps": 1, "ema_decay": 0.9, "checkpoint_every_steps": 4}
STEPS = 16


def train_sharded(output_dir):
    options = {**OPTIONS, "processes": 2, "dropout": False, "evaluates": True}
    config = REPOSITORY / "configs/accelerate/fsdp_cpu_2_processes.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--main_process_port", "0", str(Path(tiny_run.__file__)), str(output_dir), json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["form"] == "FSDP"
    return outcome


@pytest.fixture
def train_whole(monkeypatch, accelerator):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)
    return lambda folder: tiny_train(folder, tiny_config(**OPTIONS), accelerator, uneven_evaluation(accelerator))


def lines(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def same_course(one, other):
    assert len(lines(one)) == len(lines(other)) > STEPS
    for a, b in zip(lines(one), lines(other), strict=True):
        for name in a.keys() & {"loss", "grad_norm", "learning_rate", "top1"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a, b)


def cut_back(source, target, step):
    shutil.copytree(source, target)
    for directory in list_checkpoints(target / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    return target


def test_sharded_and_whole_runs_go_on_from_each_other(tmp_path, train_whole):
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    train_whole(whole)
    assert train_sharded(sharded)["steps"] == STEPS
    same_course(whole, sharded)
    for name in (MODEL, OPTIMIZER, f"{EMA}/{MODEL}"):
        one, other = (load_file(run / "checkpoints" / "step-00000012" / name) for run in (whole, sharded))
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[key], other[key], rtol=1e-4, atol=1e-6) for key in one), name

    from_sharded, from_whole = tmp_path / "from_sharded", tmp_path / "from_whole"
    summary, _ = train_whole(cut_back(sharded, from_sharded, 8))
    assert summary.resumed_step == 8
    same_course(whole, from_sharded)
    assert train_sharded(cut_back(whole, from_whole, 8))["resumed"] == 8
    same_course(whole, from_whole)
