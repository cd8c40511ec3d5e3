"""`tools/export.py`: exported files, weights of a run, and mistakes."""

from dataclasses import asdict

import export
import pytest
import torch
import yaml

from tests.refusals import assert_refusal
from vidtl.config import ClipConfig, EvaluationConfig, ExperimentConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, save_model_directory
from vidtl.models.export import read_metadata


def made(seed):
    torch.manual_seed(seed)
    stage = TokenLearnerConfig(num_tokens=2, after_block=1)
    config = ModelConfig(width=8, depth=1, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=stage)
    clip = ClipConfig(num_frames=4, frame_size=(16, 16), short_side=16)
    model = build_model(config, clip, 2)
    torch.nn.init.normal_(model.classifier()[1].weight)
    return model


@pytest.fixture
def directory(tmp_path):
    model = made(1)
    model.class_names = ("left", "right")
    save_model_directory(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_file_for_any_batch(directory, tmp_path, run_main):
    path = tmp_path / "model.pt2"
    output, _ = run_main(export.main, "--checkpoint", directory, "--output", path)
    assert [part for part in ("batch of 1", "batch of 3", str(path)) if part not in output] == []
    assert read_metadata(path)["class_names"] == ["left", "right"]
    clips = torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(clips), made(1).eval()(clips))


@pytest.mark.parametrize("averaged", [True, False])
def test_weights_are_those_of_evaluation(averaged, tmp_path):
    from vidtl.training.checkpoint import Checkpoint
    from vidtl.training.checkpoint_directory import EMA, EXPERIMENT

    folder = tmp_path / "weights"
    save_model_directory(made(1), folder)
    save_model_directory(made(2), folder / EMA)
    config = asdict(ExperimentConfig(evaluation=EvaluationConfig(averaged_weights=averaged)))
    (folder / EXPERIMENT).write_text(yaml.safe_dump({"evaluation": config["evaluation"]}))
    assert export.used_by_evaluation(Checkpoint(folder)) == Checkpoint(folder, averaged=averaged)


def test_a_directory_of_transformers(tmp_path, run_main):
    stage = TokenLearnerConfig(num_tokens=0)
    config = ModelConfig(form="joint", width=8, depth=1, num_heads=2, pooling="cls", token_learner=stage)
    clip = ClipConfig(num_frames=4, frame_size=(32, 32))
    save_model_directory(build_model(config, clip, 2), tmp_path / "model")
    options = ("--checkpoint", tmp_path / "model", "--output", tmp_path / "out", "--format", "transformers")
    assert "batch of 1" in run_main(export.main, *options)[0]
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    _, errors = run_main(export.main, *options, code=2)
    assert_refusal(errors, tmp_path / "out", "empty")


@pytest.mark.parametrize(
    ("output", "options", "parts"),
    [
        ("model.onx", (), ["'.onx'", "'.onnx'"]),
        ("model.pt", (), ["'.pt'", "'.pt2'"]),
        ("model", (), ["suffix ''", ".onnx, .pt2"]),
        ("absent/model.pt2", (), ["absent/model.pt2", "a folder that exists"]),
        ("model.pt2", ("--batch", "0"), ["--batch", "'0'", "1 or more"]),
        ("model.pt2", ("--batch", "many"), ["--batch", "'many'"]),
        ("model.pt2", ("--batch", "2", "--tolerance", "-1"), ["model.pt2", "not written", "batch of 2"]),
        ("out", ("--format", "transformer"), ["--format", "'transformer'", "transformers"]),
        ("out", ("--format", "transformers", "--batch", "2"), ["--batch", "2", "transformers"]),
        ("out", ("--format", "transformers"), ["model.form", "'factorised_encoder'", "'joint'"]),
    ],
)
def test_mistakes(directory, tmp_path, run_main, output, options, parts):
    run_main(export.main, "--checkpoint", directory, "--output", tmp_path / output, *options, refused=parts)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
