"""Checks of values, also of sections that are built in Python."""

from typing import Any

import pytest

from tests.refusals import refused
from vidtl.config import ExperimentConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.checks import choices_of
from vidtl.config.load import build, leaves

SETTINGS = leaves(ExperimentConfig)


@pytest.mark.parametrize("key", [key for key, leaf in SETTINGS.items() if choices_of(leaf.hint)])
def test_choices(key: str) -> None:
    with refused(key, "'no such'"):
        build(ExperimentConfig, {key: leaf.default for key, leaf in SETTINGS.items()} | {key: "no such"})


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
        ({"size": "X"}, ("model.size", "'X'", "Ti, S, B, L, H")),
        ({"head_width": 8}, ("model.head_width", "8", "vivit")),
        ({"width": 0}, ("model.width", "0", "1 or more")),
        ({"tubelet": (2, 0, 16)}, ("model.tubelet", "(2, 0, 16)")),
        ({"dropout": 1.0}, ("model.dropout", "1.0", "below 1")),
        ({"token_learner": {"version": "v2"}}, ("model.token_learner.version", "'v2'", "'v1'")),
        ({"token_learner": {"num_tokens": -1}}, ("model.token_learner.num_tokens", "-1")),
        ({"token_learner": {"pooling": "mean"}}, ("model.token_learner.pooling", "'mean'", "v1.1")),
        ({"token_learner": {"elastic": True, "fuser": True}}, ("model.token_learner.fuser", True, "elastic")),
        ({"token_learner": {"elastic": True, "version": "merge"}}, ("token_learner.version", "merge", "v1.1")),
        ({"token_learner": {"elastic": True}, "pooling": "cls"}, ("model.pooling", "cls", "mean", "elastic")),
        ({"token_learner": {"version": "average"}, "num_registers": 1}, ("model.num_registers", 1, 0, "average")),
        ({"token_learner": {"version": "merge"}, "form": "factorised_dot_product"}, ("model.form", "joint", "merge")),
        ({"token_learner": {"hidden": 4}}, ("model.token_learner.hidden", 4, 8)),
        ({"architecture": "mini_vit", "token_learner": {"fuser": True}}, ("model.token_learner.fuser", "mini_vit")),
    ],
)
def test_model_settings(settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    stage = TokenLearnerConfig(**settings.pop("token_learner", {}))
    with refused(*parts):
        ModelConfig(token_learner=stage, **settings)
