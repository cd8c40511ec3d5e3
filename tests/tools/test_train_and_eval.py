"""Training and evaluation through `accelerate launch`: encoded videos to a checkpoint, curves and metrics."""

import json
import shlex

import eval as evaluation
import pytest
import train as training
from PIL import Image

from tests.training.runs import log_lines, losses
from vidtl.training.checkpoint_directory import find_problem


def train(launch, config, tiny, toy, folder):
    options = ["--data.root", toy, "--output_dir", folder, "--schedule.length", "2 epochs"]
    done = launch(config, "train", *tiny, *options, "--training.log_every_steps", "1")
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def run(launch, toy, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(launch, "cpu", tiny, toy, folder)
    return folder


def test_a_run_leaves_its_settings_metrics_curves_and_checkpoint(run):
    training = [line for line in log_lines(run) if "split" not in line]
    assert [line["step"] for line in training] == list(range(1, 9))
    parts = ("data_wait_share", "transfer_share", "compute_share")
    assert all(0 < sum(line[part] for part in parts) <= 1 for line in training)
    assert [line["step"] for line in log_lines(run) if line.get("split") == "val"] == [8]
    assert "num_frames: 8" in (run / "config.yaml").read_text()
    assert list((run / "tensorboard").iterdir())
    with Image.open(run / "curves.png") as picture:
        assert min(picture.size) > 300
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000008"
    assert json.loads((checkpoint / "config.json").read_text())["class_names"][0] == "moving left"


def test_two_processes_train_as_one(launch, run, toy, tiny, tmp_path):
    assert "2 processes on CPU, fp32" in train(launch, "cpu_2_processes", tiny, toy, tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(run), abs=1e-5)


def test_the_command_at_the_end_evaluates_the_best_checkpoint(run_main, toy, tiny, tmp_path):
    options = [*tiny, "--data.root", toy, "--output_dir", tmp_path / "a run", "--schedule.length", "2 epochs"]
    options += ["--training.evaluate_every_epochs", "1", "--optimizer.learning_rate", "1e-12"]  # equal evaluations
    out, _ = run_main(training.main, *options)
    printed = dict(line.split(maxsplit=1) for line in out.splitlines())
    first, _ = (line for line in log_lines(tmp_path / "a run") if "split" in line)
    best, place = f"top-1 {100 * first['top1']:.1f}", tmp_path / "a run/checkpoints/step-00000004"
    assert printed["best"] == f"{best} at step 4: {place}"
    assert printed["last"].endswith("step-00000008")
    python, tool, *command = shlex.split(printed["next"])
    assert (python, tool) == ("python", "eval.py")
    _, errors = run_main(evaluation.main, *command, "--html", "false")
    assert errors.startswith(f"checkpoint {place} (best {best})\n")
    metrics = json.loads((tmp_path / "a run/evaluation/step-00000004/val-center/metrics.json").read_text())["metrics"]
    assert metrics["loss"] == pytest.approx(first["loss"], rel=1e-4)


def test_multi_label(run_main, toy_multilabel, tiny, tmp_path):
    folder = tmp_path / "run"
    options = ["--data.dataset", "toy_multilabel", "--data.root", toy_multilabel, "--output_dir", folder]
    run_main(training.main, *tiny, *options, "--schedule.length", "1 epoch")
    output, _ = run_main(evaluation.main, "--checkpoint", folder, "--calibrate")
    assert "mAP_charades" in output
    checkpoint = folder / "checkpoints/step-00000003"
    assert (checkpoint / "calibration.json").is_file()
    assert find_problem(checkpoint) is None
    metrics = json.loads((folder / "evaluation/step-00000003/val-center/metrics.json").read_text())
    assert metrics["multi_label"]
    assert 0 < metrics["metrics"]["mAP"] <= 1
