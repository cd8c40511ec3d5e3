"""A setting that takes one of a few values refuses any other, however it is given."""

from typing import Any

import pytest

from tests.refusals import refused
from vidtl.config import (
    AugmentationConfig,
    ClipConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TokenLearnerConfig,
    TrainingConfig,
)
from vidtl.errors import UserError


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        (AugmentationConfig, "augmentation.crop", "centre", "did you mean 'center'?"),
        (ClipConfig, "clip.sampling", "segment", "did you mean 'segments'?"),
        (EvaluationConfig, "evaluation.fusion", "maximum", "did you mean 'max'?"),
        (ModelConfig, "model.architecture", "vivitt", "did you mean 'vivit'?"),
        (ModelConfig, "model.form", "jiont", "did you mean 'joint'?"),
        (ModelConfig, "model.size", "X", "allowed: Ti, S, B, L, H"),
        (ModelConfig, "model.positions", "sincos", "did you mean 'sincos_3d'?"),
        (ModelConfig, "model.attention_order", "tims_space", "did you mean 'time_space'?"),
        (ModelConfig, "model.tubelet_sampling", "unifrom", "did you mean 'uniform'?"),
        (ModelConfig, "model.pooling", "avg", "allowed: cls, mean, max, sum"),
        (OptimizerConfig, "optimizer.name", "adam", "did you mean 'adamw'?"),
        (ScheduleConfig, "schedule.name", "cosin", "did you mean 'cosine'?"),
        (TrainingConfig, "training.precision", "fp8", "did you mean 'fp16'?"),
    ],
)
def test_the_key_the_value_and_the_nearest_are_told(section: type, key: str, value: object, words: str) -> None:
    with pytest.raises(UserError) as error:
        section(**{key.rpartition(".")[2]: value})
    assert str(error.value) == f"{key} is {value!r}; {words}"


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"architecture": "t2t_vit", "size": 15}, ("model.size", "'15'", "7, 10, 12, 14, 19, 24")),
        ({"architecture": "pytorchvideo", "size": "x3d_l"}, ("model.size", "'x3d_l'", "x3d_s")),
        ({"architecture": "mini_vit", "size": "B"}, ("model.size", "'B'")),
        ({"architecture": "t2t_vit", "form": "joint"}, ("model.form", "'joint'", "null", "t2t_vit")),
        ({"architecture": "mini_vit", "stochastic_depth": 0.1}, ("model.stochastic_depth", "0.1", "mini_vit")),
        ({"architecture": "pytorchvideo", "size": "slow_r50", "stochastic_depth": 0.1}, ("0.1", "slow_r50")),
        ({"architecture": "t2t_vit", "tokenizer": "tubelet"}, ("model.tokenizer", "'tubelet'", "t2t_performer")),
        ({"head_width": 8}, ("model.head_width", "8", "vivit")),
        ({"width": 0}, ("model.width", "0", "1 or more")),
        ({"tubelet": (2, 0, 16)}, ("model.tubelet", "(2, 0, 16)")),
        ({"dropout": 1.0}, ("model.dropout", "1.0", "below 1")),
        ({"token_learner": {"version": "v2"}}, ("model.token_learner.version", "'v2'", "'v1'")),
        ({"token_learner": {"num_tokens": -1}}, ("model.token_learner.num_tokens", "-1")),
        ({"token_learner": {"pooling": "mean"}}, ("model.token_learner.pooling", "'mean'", "v1.1")),
        ({"architecture": "mini_vit", "token_learner": {"fuser": True}}, ("model.token_learner.fuser", "mini_vit")),
    ],
)
def test_a_model_setting_that_cannot_be_is_refused(settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    stage = TokenLearnerConfig(**settings.pop("token_learner", {}))
    with refused(*parts):
        ModelConfig(token_learner=stage, **settings)
