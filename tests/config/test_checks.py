"""A setting that takes one of a few values refuses any other, however it is given."""

import pytest

from vidtl.config import (
    AugmentationConfig,
    ClipConfig,
    EvaluationConfig,
    MiniViTConfig,
    ModelConfig,
    OptimizerConfig,
    PytorchVideoConfig,
    ScheduleConfig,
    T2TViTConfig,
    TokenLearnerConfig,
    TrainingConfig,
    ViViTConfig,
)
from vidtl.errors import UserError


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        (AugmentationConfig, "augmentation.crop", "centre", "did you mean 'center'?"),
        (ClipConfig, "clip.sampling", "segment", "did you mean 'segments'?"),
        (EvaluationConfig, "evaluation.fusion", "maximum", "did you mean 'max'?"),
        (ModelConfig, "model.architecture", "vivitt", "did you mean 'vivit'?"),
        (ViViTConfig, "model.vivit.form", "jiont", "did you mean 'joint'?"),
        (ViViTConfig, "model.vivit.size", "X", "allowed: Ti, S, B, L, H"),
        (ViViTConfig, "model.vivit.positions", "sincos", "did you mean 'sincos_3d'?"),
        (ViViTConfig, "model.vivit.attention_order", "tims_space", "did you mean 'time_space'?"),
        (ViViTConfig, "model.vivit.tubelet_sampling", "unifrom", "did you mean 'uniform'?"),
        (ViViTConfig, "model.vivit.pooling", "avg", "allowed: cls, mean, max, sum"),
        (T2TViTConfig, "model.t2t_vit.size", 15, "allowed: 7, 10, 12, 14, 19, 24"),
        (T2TViTConfig, "model.t2t_vit.size", "14", "allowed: 7, 10, 12, 14, 19, 24"),
        (MiniViTConfig, "model.mini_vit.positions", "fixed", "allowed: learned, frozen"),
        (PytorchVideoConfig, "model.pytorchvideo.name", "x3d_l", "did you mean 'x3d_s'?"),
        (OptimizerConfig, "optimizer.name", "adam", "did you mean 'adamw'?"),
        (ScheduleConfig, "schedule.name", "cosin", "did you mean 'cosine'?"),
        (TrainingConfig, "training.precision", "fp8", "did you mean 'fp16'?"),
    ],
)
def test_the_key_the_value_and_the_nearest_are_told(section: type, key: str, value: object, words: str) -> None:
    with pytest.raises(UserError) as error:
        section(**{key.rpartition(".")[2]: value})
    assert str(error.value) == f"{key} is {value!r}; {words}"


@pytest.mark.parametrize(("section", "key"), [(ViViTConfig, "model.vivit"), (MiniViTConfig, "model.mini_vit")])
def test_a_stage_inside_a_section_is_told_with_it(section: type, key: str) -> None:
    stage = TokenLearnerConfig(version="v2")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"{key}\.token_learner\.version is 'v2'; did you mean 'v1'\?"):
        section(token_learner=stage)
