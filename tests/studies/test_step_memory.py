"""The memory of a step follows the activations, and is that of one variant alone."""

import pytest
import torch

from vidtl.config import ClipConfig, ExperimentConfig, ModelConfig, TokenLearnerConfig, ViViTConfig
from vidtl.studies.step_memory import measure_step_memory, resident_bytes


def experiment(num_tokens: int) -> ExperimentConfig:
    token_learner = TokenLearnerConfig(num_tokens=num_tokens, after_block=0)
    vivit = ViViTConfig(
        width=48, depth=4, num_heads=2, temporal_depth=1, tubelet=(2, 4, 4), token_learner=token_learner
    )
    clip = ClipConfig(num_frames=8, frame_size=(64, 64), short_side=64)
    return ExperimentConfig(model=ModelConfig(vivit=vivit), clip=clip)


def test_fewer_tokens_need_less_and_the_order_does_not_matter() -> None:
    if resident_bytes() is None:
        pytest.skip("this system does not tell what a process holds")
    whole, learned, again = measure_step_memory(
        [experiment(0), experiment(8), experiment(0)], 4, 8, torch.device("cpu")
    )
    tokens_bytes = 8 * 4 * 256 * 48 * 4  # of one activation: 8 clips, 4 steps of 256 tokens
    assert whole > 4 * 12 * tokens_bytes, "four blocks keep a dozen activations each, or more"
    assert learned < 0.6 * whole
    assert abs(again - whole) < 0.15 * whole
