"""A multi-label model that begins at the classes' frequencies."""

import pytest
import torch

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model

SMALL = ModelConfig(
    width=16, depth=2, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=TokenLearnerConfig(after_block=1)
)


@pytest.mark.parametrize(
    ("config", "clip"),
    [
        (SMALL, ClipConfig(num_frames=4, frame_size=(32, 32), short_side=32)),
        (
            ModelConfig(architecture="mini_vit"),
            ClipConfig(num_frames=1, frame_size=(48, 48), short_side=48),
        ),
    ],
    ids=["vivit", "mini_vit"],
)
def test_a_fresh_model_predicts_the_frequencies(config: ModelConfig, clip: ClipConfig) -> None:
    rates = torch.tensor([0.5, 0.1, 0.0])
    model = build_model(config, clip, num_classes=3).eval()
    model.set_class_prior(rates)
    for parameter in (p for name, p in model.named_parameters() if name == "head.weight"):
        torch.nn.init.zeros_(parameter)
    logits = model(torch.randn(2, clip.num_frames, 3, *clip.frame_size))
    torch.testing.assert_close(torch.sigmoid(logits), rates.clamp(min=0.001).expand(2, 3))
