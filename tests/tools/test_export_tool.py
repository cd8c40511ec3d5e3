"""`tools/export.py` as a user runs it: any model directory in, one checked file or one line of error out."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from vidtl.config import ClipConfig, EvaluationConfig, ExperimentConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import VideoModel, build_model, save_model_directory
from vidtl.models.export import read_metadata

Run = Callable[..., tuple[int, str, str]]


def made(seed: int) -> VideoModel:
    torch.manual_seed(seed)
    stage = TokenLearnerConfig(num_tokens=2, after_block=1)
    config = ModelConfig(width=8, depth=1, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=stage)
    clip = ClipConfig(num_frames=4, frame_size=(16, 16), short_side=16)
    model = build_model(config, clip, 2)
    torch.nn.init.normal_(model.classifier()[1].weight)
    return model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = made(1)
    model.class_names = ("left", "right")
    save_model_directory(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_file_for_any_batch(directory: Path, tmp_path: Path, run_main: Run) -> None:
    import export

    path = tmp_path / "model.pt2"
    code, output, errors = run_main(export.main, "--checkpoint", directory, "--output", path)
    assert code == 0, errors
    assert output.count("max|diff|") == 2
    assert "batch of 1" in output
    assert "batch of 3" in output
    assert str(path) in output
    assert read_metadata(path)["class_names"] == ["left", "right"]
    clips = torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(clips), made(1).eval()(clips))


def test_onnx_of_one_batch_size_within_a_tolerance_that_float32_cannot_meet(
    directory: Path, tmp_path: Path, run_main: Run
) -> None:
    import export

    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older file")
    options = ("--batch", "2", "--tolerance", "1e-12")
    code, output, errors = run_main(export.main, "--checkpoint", directory, "--output", path, *options)
    assert code == 2
    assert "written" not in output
    assert "model.onnx was not written" in errors
    assert "batch of 2: max|diff|" in errors
    assert path.read_bytes() == b"an older file"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "model.onnx"]


@pytest.mark.parametrize("averaged", [True, False])
def test_the_weights_are_those_that_evaluation_takes(averaged: bool, tmp_path: Path, run_main: Run) -> None:
    import export

    from vidtl.training.checkpoint import EMA, EXPERIMENT, Checkpoint

    folder = tmp_path / "weights"
    save_model_directory(made(1), folder)
    save_model_directory(made(2), folder / EMA)
    config = asdict(ExperimentConfig(evaluation=EvaluationConfig(averaged_weights=averaged)))
    (folder / EXPERIMENT).write_text(yaml.safe_dump({"evaluation": config["evaluation"]}))
    assert export.used_by_evaluation(Checkpoint(folder)) == Checkpoint(folder, averaged=averaged)


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("model.onx", (), "did you mean '.onnx'?"),
        ("model.pt", (), "did you mean '.pt2'?"),
        ("model", (), "suffix ''; allowed: .onnx, .pt2"),
        ("absent/model.pt2", (), "absent/model.pt2'; allowed: a file in a folder that exists"),
        ("model.pt2", ("--batch", "0"), "--batch is '0'; allowed: a whole number, 1 or more, or dynamic"),
        ("model.pt2", ("--batch", "many"), "--batch is 'many'; allowed"),
        ("model.pt2", ("--bach", "1"), "--bach"),
    ],
)
def test_mistakes_take_one_line_and_leave_nothing(
    directory: Path, tmp_path: Path, run_main: Run, output: str, options: tuple[str, ...], message: str
) -> None:
    import export

    code, _, errors = run_main(export.main, "--checkpoint", directory, "--output", tmp_path / output, *options)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
