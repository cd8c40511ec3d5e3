"""Every value of every setting that takes one of a few can be given on the command line; another is told."""

from pathlib import Path

import pytest
from command_line import _choices, experiment_parser, parse_experiment

from vidtl.config import ExperimentConfig

CHOICES = [(key, value) for key, allowed in _choices(ExperimentConfig) for value in allowed]

BESIDE = {
    "decord": ("--data.pixel_format", "rgb"),
    "torchcodec": ("--data.pixel_format", "rgb"),
    "step": ("--schedule.milestones", "['1 epoch']"),
    "mean": ("--model.token_learner.version", "v1"),
}
"""What some values need besides."""


def parsed(*arguments: str) -> ExperimentConfig:
    return parse_experiment(experiment_parser("train.py", ""), list(arguments))[1]


@pytest.mark.parametrize(("key", "value"), CHOICES, ids=lambda part: str(part))
def test_every_choice_is_taken(key: str, value: str | int) -> None:
    found: object = parsed(f"--{key}", str(value), *BESIDE.get(str(value), ()))
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_size_may_be_a_number_and_null_takes_a_value_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {architecture: t2t_vit, size: 19, width: 64}\n")
    config = parsed("--config", str(file), "--model.width", "null").model
    assert (config.size, config.width) == ("19", None)
    assert parsed("--model.architecture", "t2t_vit", "--model.size", "7").model.size == "7"
    assert parsed("--config", str(file), "--model.tokenizer", "null").model.tokenizer is None
