"""A model that two processes share out (FSDP2, ZeRO) trains as one that is whole, and their checkpoints are alike."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.training import tiny_run
from tests.training.tiny_run import spoil_task, tiny_config, tiny_task, tiny_train, uneven_evaluation
from tests.training.tiny_vivit import tiny_vivit
from vidtl.errors import UserError
from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER, checkpoint_step, list_checkpoints
from vidtl.training.deepspeed import ZeroStrategy
from vidtl.training.optimizer import build_optimizer

OPTIONS = {"batch_size": 6, "log_every_steps": 1, "ema_decay": 0.9, "checkpoint_every_steps": 4}
STEPS = 16
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed: pip install -e '.[deepspeed]'"
)
LAUNCHES = {
    "FSDP": ["fsdp_cpu_2_processes"],
    "DEEPSPEED_ZERO_1": ["deepspeed_cpu_2_processes", "--zero_stage", "1"],
    "DEEPSPEED_ZERO_2": ["deepspeed_cpu_2_processes"],
}


def start_sharded(form, output_dir, **options):
    options = {**OPTIONS, "processes": 2, "dropout": False, "evaluates": True, **options}
    name, *arguments = LAUNCHES[form]
    config = REPOSITORY / f"configs/accelerate/{name}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *arguments]
    command += ["--main_process_port", "0", str(Path(tiny_run.__file__)), str(output_dir), json.dumps(options)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


def train_sharded(form, output_dir, **options):
    done = start_sharded(form, output_dir, **options)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["form"] == form
    return outcome


@pytest.fixture
def train_whole(monkeypatch, accelerator):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)

    def train(folder, optimizer="adamw", spoil=lambda task: task, **options):
        config = tiny_config(**OPTIONS, **options)
        config = replace(config, optimizer=replace(config.optimizer, name=optimizer))
        return tiny_train(folder, config, accelerator, uneven_evaluation(accelerator), spoil(tiny_task(config)))

    return train


def lines(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def same_course(one, other):
    assert len(lines(one)) == len(lines(other)) > STEPS
    for a, b in zip(lines(one), lines(other), strict=True):
        for name in a.keys() & {"loss", "grad_norm", "learning_rate", "top1"}:
            # A loss that is not finite is null.
            expected = None if b[name] is None else pytest.approx(b[name], rel=1e-5)
            assert a[name] == expected, (a, b)


def tensors(output_dir, step, name):
    return load_file(output_dir / "checkpoints" / f"step-{step:08d}" / name)


def cut_back(source, target, step):
    shutil.copytree(source, target)
    for directory in list_checkpoints(target / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    return target


@pytest.mark.parametrize(
    ("form", "optimizer", "sharded_options"),
    [
        ("FSDP", "adamw", {}),
        pytest.param("DEEPSPEED_ZERO_2", "adamw", {"accumulation_steps": 3}, marks=needs_deepspeed),
        pytest.param("DEEPSPEED_ZERO_1", "sgd", {"accumulation_steps": 3}, marks=needs_deepspeed),
    ],
)
def test_sharded_and_whole_runs_go_on_from_each_other(tmp_path, train_whole, form, optimizer, sharded_options):
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    sharded_options = {"optimizer": optimizer, **sharded_options}
    train_whole(whole, optimizer)
    assert train_sharded(form, sharded, **sharded_options)["steps"] == STEPS
    same_course(whole, sharded)
    for name in (MODEL, OPTIMIZER, f"{EMA}/{MODEL}"):
        one, other = tensors(whole, 12, name), tensors(sharded, 12, name)
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[key], other[key], rtol=1e-4, atol=1e-6) for key in one), name

    from_sharded, from_whole = tmp_path / "from_sharded", tmp_path / "from_whole"
    summary, _ = train_whole(cut_back(sharded, from_sharded, 8), optimizer)
    assert summary.resumed_step == 8
    same_course(whole, from_sharded)
    assert train_sharded(form, cut_back(whole, from_whole, 8), **sharded_options)["resumed"] == 8
    same_course(whole, from_whole)


@needs_deepspeed
def test_zero_leaves_out_a_step_and_goes_on_after_a_kill(tmp_path, train_whole):
    whole, unbroken, killed = tmp_path / "whole", tmp_path / "unbroken", tmp_path / "killed"
    nan_at_5 = ("nan@step", 1, 5)
    train_whole(whole, spoil=lambda task: spoil_task(task, "nan@step", 5), nonfinite="skip")
    train_sharded("DEEPSPEED_ZERO_2", unbroken, nonfinite="skip", trouble=nan_at_5)
    same_course(whole, unbroken)
    assert [line["step"] for line in lines(unbroken) if "loss" in line and line["loss"] is None] == [6]

    shutil.copytree(cut_back(unbroken, tmp_path / "cut", 8), killed)
    broken = start_sharded("DEEPSPEED_ZERO_2", killed, nonfinite="skip", trouble=("kill@step", 1, 14))
    assert broken.returncode != 0
    assert "SIGKILL" in broken.stderr
    assert train_sharded("DEEPSPEED_ZERO_2", killed, nonfinite="skip")["resumed"] == 12
    for name in (MODEL, OPTIMIZER, f"{EMA}/{MODEL}"):
        one, other = tensors(unbroken, STEPS, name), tensors(killed, STEPS, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_deepspeed_cannot_share_out_muon(accelerator):
    model, config = tiny_vivit(), replace(tiny_config().optimizer, name="muon")
    optimizer = build_optimizer(model, config, torch.device("cpu"))
    with pytest.raises(UserError, match=r"optimizer\.name is 'muon'"):
        ZeroStrategy(model, optimizer, accelerator, 2)
