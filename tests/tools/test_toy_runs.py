"""Runs on the toy set: replaced videos are reported, and a trained model is at chance on one repeated frame."""

import json
import shutil
from pathlib import Path

import eval as evaluation
import numpy as np
import pytest
import train

from tests.environment import REPOSITORY
from vidtl.data import dataset
from vidtl.data.toy import ToySettings, make_toy
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
