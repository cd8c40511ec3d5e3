"""A run killed with SIGKILL and resumed ends with bitwise equal weights."""

import os
import signal
import subprocess
import sys

import yaml

from tests.environment import REPOSITORY, wait_for


def start(options, output):
    command = [sys.executable, str(REPOSITORY / "tools/train.py"), *options, "--output_dir", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_resuming_after_sigkill_is_bitwise(toy, tiny, tmp_path):
    options = [
        *(*tiny, "--data.root", str(toy), "--schedule.length", "3 epochs", "--training.ema_decay", "0.9"),
        # Repeated clips, RandAugment, erasing, MixUp and CutMix.
        *("--augmentation.preset", "videomae_kinetics", "--augmentation.color_jitter_probability", "0.5"),
        *("--augmentation.crop", "random_resized", "--augmentation.flip_probability", "0.5"),
        *("--model.dropout", "0.1", "--model.stochastic_depth", "0.2", "--training.label_smoothing", "0.1"),
        *("--training.checkpoint_every_steps", "3", "--training.evaluate_every_epochs", "1.5"),
    ]
    whole = tmp_path / "whole"
    unbroken = start([*options, "--data.num_workers", "2"], whole)
    output, _ = unbroken.communicate(timeout=240)
    assert unbroken.returncode == 0, output
    recorded = yaml.safe_load((whole / "config.yaml").read_text())["augmentation"]
    assert (recorded["repeats"], recorded["rand_augment_num_ops"], recorded["cutmix_alpha"]) == (2, 4, 1.0)

    broken = tmp_path / "broken"
    for checkpoint, workers in (("step-00000003", "1"), ("step-00000012", "2")):  # workers change no bit either
        process = start([*options, "--data.num_workers", workers], broken)
        wait_for(broken / "checkpoints" / checkpoint, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (broken / "checkpoints/step-00000024").exists()  # it was killed before its end
    process = start([*options, "--data.num_workers", "0"], broken)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output

    for name in ("model.safetensors", "optimizer.safetensors", "ema/model.safetensors"):
        ends = [(folder / "checkpoints/step-00000024" / name).read_bytes() for folder in (whole, broken)]
        assert ends[0] == ends[1], name
    steps = [line.split(",")[0] for line in (broken / "metrics.jsonl").read_text().splitlines() if "split" not in line]
    assert len(steps) == len(set(steps))
