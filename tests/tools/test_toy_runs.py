"""Runs on the toy set: replaced videos, one repeated frame, and a run killed with SIGKILL, which resumes bitwise."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import eval as evaluation
import numpy as np
import pytest
import train
from toy_set import ToySettings, make_toy

from tests.environment import REPOSITORY, wait_for
from vidtl.data import dataset
from vidtl.runtime.progress import Progress


def test_the_summary_counts_replaced_clips_by_class(run_main, toy, tiny, tmp_path):
    root = Path(shutil.copytree(toy, tmp_path / "toy"))
    broken = sorted((root / "videos/train").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    options = ["--data.root", root, "--schedule.length", "1 epoch", "--data.num_workers", "0"]
    options += ["--augmentation.repeats", "2", "--output_dir", tmp_path / "run"]
    out, error = run_main(train.main, *tiny, *options)
    unreadable, replaced = [line for line in out.splitlines() if line.startswith(("unreadable", "replaced"))]
    assert broken.name in unreadable
    name = replaced.removeprefix("replaced    class ").removesuffix(": 2 of 8 clips")
    assert f"class {name}: 2 of 8 clips replaced so far" in error


@pytest.mark.timeout(600)
def test_a_single_frame_gives_chance(run_main, tmp_path, monkeypatch):
    settings = ToySettings(videos_per_class_train=60, videos_per_class_val=40)
    make_toy(tmp_path / "toy", settings, Progress(visible=False))
    options = ["--config", REPOSITORY / "configs/toy.yaml", "--data.root", tmp_path / "toy"]
    options += ["--output_dir", tmp_path / "run", "--training.evaluate_every_epochs", "0"]
    run_main(train.main, *options)

    def top1(name):
        run_main(evaluation.main, "--checkpoint", tmp_path / "run", "--output_dir", tmp_path / name)
        return float(json.loads((tmp_path / name / "val-center/metrics.json").read_text())["metrics"]["top1"])

    assert top1("whole") > 0.8
    chosen = dataset.view_indices
    monkeypatch.setattr(dataset, "view_indices", lambda *given: np.repeat(chosen(*given)[:, 8:9], 16, axis=1))
    assert abs(top1("middle frame") - 1 / 8) < 0.05


def start(options, output):
    command = [sys.executable, str(REPOSITORY / "tools/train.py"), *options, "--output_dir", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


WHOLE = ("--clip.short_side", "0", "--clip.background", "true", "--clip.mean", "[0,0,0]", "--clip.std", "[1,1,1]",
         "--augmentation.crop", "center", "--augmentation.vertical_flip_probability", "0.5")  # fmt: skip


@pytest.mark.parametrize("clips", [("--augmentation.crop", "random_resized"), WHOLE], ids=["crops", "background"])
def test_resuming_after_sigkill_is_bitwise(toy, tiny, tmp_path, clips):
    options = [
        *(*tiny, "--data.root", str(toy), "--schedule.length", "3 epochs", "--training.ema_decay", "0.9"),
        # Repeated clips, RandAugment, erasing, MixUp and CutMix.
        *("--augmentation.preset", "videomae_kinetics", "--augmentation.color_jitter_probability", "0.5"),
        *("--augmentation.flip_probability", "0.5", *clips),
        *("--model.dropout", "0.1", "--model.stochastic_depth", "0.2", "--training.label_smoothing", "0.1"),
        *("--training.checkpoint_every_steps", "3", "--training.evaluate_every_epochs", "1.5"),
    ]
    whole = tmp_path / "whole"
    unbroken = start([*options, "--data.num_workers", "2"], whole)
    output, _ = unbroken.communicate(timeout=240)
    assert unbroken.returncode == 0, output

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
