"""Every value of every setting that takes one of a few can be given on the command line; another is told."""

from pathlib import Path

import pytest
from command_line import _choices, experiment_parser, parse_experiment

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError

CHOICES = [(key, value) for key, allowed in _choices(ExperimentConfig) for value in allowed]

BESIDE = {
    "decord": ("--data.pixel_format", "rgb"),
    "torchcodec": ("--data.pixel_format", "rgb"),
    "step": ("--schedule.milestones", "['1 epoch']"),
    "mean": ("--model.vivit.token_learner.version", "v1"),
    "v1.1": ("--model.mini_vit.token_learner.pooling", "sum"),
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


def test_a_number_that_is_no_choice_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        parsed("--model.t2t_vit.size", "18")
    assert str(error.value) == "model.t2t_vit.size is '18'; allowed: 7, 10, 12, 14, 19, 24"
    (tmp_path / "mine.yaml").write_text("model:\n  t2t_vit:\n    size: 18\n")
    with pytest.raises(UserError, match="18") as error:
        parsed("--config", str(tmp_path / "mine.yaml"))
    assert "\n" not in str(error.value)
