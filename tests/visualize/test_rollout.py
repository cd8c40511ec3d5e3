"""Attention rollout against what follows by hand for uniform and planted attention, in every form of ViViT."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.attention import Attention
from vidtl.models.vivit import ViViT
from vidtl.visualize.rollout import clip_rollout

FORMS = ["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]
T, H, W = 3, 2, 4
N = H * W
CLIP = ClipConfig(num_frames=2 * T, frame_size=(4 * H, 4 * W), short_side=4 * W)
NO_STAGE = TokenLearnerConfig(num_tokens=0)


def make(form, depth=1, temporal_depth=0, pooling="mean", **more):
    torch.manual_seed(0)
    config = ModelConfig(
        form=form, width=8, depth=depth, num_heads=2, mlp_width=8, temporal_depth=temporal_depth,
        tubelet=(2, 4, 4), pooling=pooling, token_learner=NO_STAGE, **more,
    )  # fmt: skip
    model = build_model(config, CLIP, 3)
    assert isinstance(model, ViViT)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def attentions(model):
    return (part for part in model.modules() if isinstance(part, Attention))


def clip_of_noise():
    return torch.randn(2, 2 * T, 3, 4 * H, 4 * W)


VARIANTS = [
    *((form, {}) for form in FORMS),
    ("joint", {"pooling": "cls"}),
    ("factorised_encoder", {"pooling": "cls", "temporal_depth": 2}),
    ("factorised_encoder", {"temporal_depth": 2}),
    ("factorised_encoder", {"temporal_depth": 2, "temporal_input": "tokens"}),
    ("factorised_encoder", {"temporal_depth": 2, "temporal_input": "places", "attention_softcap": 50.0}),
    ("joint", {"pooling": "attention", "num_registers": 2}),
    ("factorised_encoder", {"pooling": "cls", "num_registers": 2, "temporal_depth": 2}),
]


@pytest.mark.parametrize(("form", "more"), VARIANTS)
def test_maps_sum_to_one_and_the_model_stays_as_it_was(form, more):
    model, clip = make(form, depth=3, **more).train(), clip_of_noise()
    with torch.inference_mode():
        before = model(clip)
        maps = clip_rollout(model, clip)
        torch.testing.assert_close(model(clip), before, rtol=0, atol=0)
    assert maps.shape == (T, H, W)
    assert maps.sum() == pytest.approx(1, abs=1e-6)
    assert maps.min() >= 0
    assert maps.std() > 0
    assert model.training
    assert not any(part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize(("form", "more"), VARIANTS)
def test_uniform_attention_gives_a_uniform_rollout(form, more):
    model = make(form, depth=2, **more)
    for attention in attentions(model):
        nn.init.zeros_(attention.q.weight)
        nn.init.zeros_(attention.q.bias)
    np.testing.assert_allclose(clip_rollout(model, clip_of_noise()), 1 / (T * N), rtol=1e-5)


def plant(model, t, n):
    """Let every query that can see token (t, n) attend to it alone; all others attend uniformly."""
    for name, parameter in model.named_parameters():
        nn.init.constant_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0)
    sign = torch.tensor([1.0, -1.0]).repeat(4)
    for attention in attentions(model):
        attention.q.bias.data = 100 * sign
        attention.k.weight.data = torch.eye(8)
    positions = model.encoder.positions.weight.data
    if len(positions) == T * N:
        positions[t * N + n] = sign
        return
    positions[n] = sign  # the factorised encoder: the same place in every timestep


@pytest.mark.parametrize(
    ("form", "depth", "places", "share"),
    [
        ("joint", 1, [1 * N + 5], 0.5),
        ("joint", 2, [1 * N + 5], 0.75),
        ("factorised_encoder", 1, [5, N + 5, 2 * N + 5], 0.5),  # the same place in every timestep
    ],
)
def test_tokens_that_all_others_attend_to_get_the_rollout(form, depth, places, share):
    model = make(form, depth)
    plant(model, 1, 5)
    expected = np.full(T * N, (1 - share) / (T * N))
    expected[places] += share / len(places)
    np.testing.assert_allclose(clip_rollout(model, clip_of_noise()).ravel(), expected, rtol=1e-5)


def test_one_timestep_that_the_temporal_encoder_attends_to():
    model = make("factorised_encoder", temporal_depth=1)
    plant(model, 0, 5)
    for attention in attentions(model.encoder):
        nn.init.zeros_(attention.q.bias)
    model.encoder.positions.weight.data.zero_()
    model.temporal_encoder.positions.weight.data[2] = torch.tensor([1.0, -1.0]).repeat(4)
    share = np.full((T, 1, 1), 0.5 / T) + 0.5 * np.eye(T)[2, :, None, None]
    np.testing.assert_allclose(clip_rollout(model, clip_of_noise()), share / N * np.ones((H, W)), rtol=1e-5)


def test_time_and_space_in_turn_find_the_planted_token():
    model = make("factorised_self_attention", attention_order="time_space")
    plant(model, 1, 5)
    # Over time only place 5 has a token to attend to, over space only timestep 1; elsewhere attention is uniform.
    time, space = np.zeros((2, T, N, T, N))
    for t, n in np.ndindex(T, N):
        time[t, n, :, n] = [0, 1, 0] if n == 5 else 1 / T
        space[t, n, t, :] = np.eye(N)[5] if t == 1 else 1 / N
    time, space = time.reshape(T * N, T * N), space.reshape(T * N, T * N)
    identity = np.eye(T * N)
    expected = ((space + identity) / 2 @ (time + identity) / 2).mean(axis=0)
    found = clip_rollout(model, clip_of_noise()).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.argmax() == 1 * N + 5


def test_half_of_the_heads_over_time_and_half_over_space():
    model = make("factorised_dot_product")
    plant(model, 1, 5)
    found = clip_rollout(model, clip_of_noise())
    expected = np.full((T, N), 0.5 / (T * N))
    expected += (0.25 / (T * N)) * np.array([[1.0], [0.0], [1.0]])  # space: uniform but in timestep 1
    expected[1, 5] += 0.25 / T
    expected += (0.25 / (T * N)) * (np.arange(N) != 5)  # time: uniform but at place 5
    expected[1, 5] += 0.25 / N
    np.testing.assert_allclose(found.reshape(T, N), expected, rtol=1e-4)


def test_models_without_a_rollout_are_refused():
    stage = TokenLearnerConfig(num_tokens=2, after_block=1)
    config = ModelConfig(width=8, depth=1, num_heads=2, tubelet=(2, 4, 4), token_learner=stage)
    with refused("TokenLearner"):
        clip_rollout(build_model(config, CLIP, 3), clip_of_noise())
    with refused("ViViT", "Linear"):
        clip_rollout(nn.Linear(2, 2), torch.zeros(1, 2))
