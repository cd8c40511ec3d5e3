"""Counted costs compared with the arithmetic of the layers, published figures, and the memory of a real run."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import flop_counter

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, complexity, create_model
from vidtl.models.complexity import count_multiply_adds, measure_complexity, stage_names, time_passes, time_stages

# Billions of multiply-adds from the shapes of the layers. Only matrix products, convolutions and attention count.
EXACT_GMACS: list[tuple[str, dict[str, Any], float]] = [
    ("vivit_b16x2_joint", {}, 451.52),
    ("vivit_b16x2_fe", {}, 283.34),
    ("vivit_b16x2_fsa", {}, 371.09),
    ("vivit_b16x2_fdp", {}, 276.18),
    ("vivit_b16x2_fe_tl8at3", {}, 81.92),
    ("vivit_b16x2_fe_tl16at6", {"temporal_input": "tokens"}, 161.30),
    ("16at12", {}, 760.95),
    ("8at18", {}, 1097.7),
    ("vivit_b16x1_joint", {"num_frames": 1, "frame_size": (384, 384)}, 55.5),
    ("t2t_vit_14", {}, 4.783),
    ("t2t_vit_24", {}, 13.662),
    ("t2t_vit_t_14", {}, 6.089),
    ("t2t_vit_14", {"frame_size": (384, 384)}, 16.37),
    ("mini_vit", {"token_learner": TokenLearnerConfig(num_tokens=0)}, 0.1015),
    ("mini_vit", {}, 0.0798),
]

SMALL_CLIP = ClipConfig(num_frames=4, frame_size=(32, 48), short_side=48)
STAGE = TokenLearnerConfig(num_tokens=4, after_block=2)
SMALL = ModelConfig(form="joint", width=24, depth=3, num_heads=3, tubelet=(2, 8, 8), token_learner=STAGE)


@pytest.mark.parametrize(("name", "settings", "gmacs"), EXACT_GMACS)
def test_multiply_adds_are_those_of_the_layers(name, settings, gmacs):
    num_classes = 10 if name == "mini_vit" else 1000
    with torch.device("meta"):
        model = create_model(name, num_classes, **settings)
    assert count_multiply_adds(model, model.clip_config) / 1e9 == pytest.approx(gmacs, rel=2e-3)


def block(tokens, width):
    """Count projections, products of attention, and an MLP of four times the width."""
    return 12 * tokens * width**2 + 2 * tokens**2 * width


def test_cost_of_a_small_model(monkeypatch):
    tubelets, places, learned, width = 2, 24, 4, 24
    n = tubelets * places
    expected = {
        "embed": n * (2 * 8 * 8 * 3) * width,
        "encoder.blocks.0": block(n, width),
        "encoder.blocks.1": block(n, width),
        "encoder.blocks.2": block(tubelets * learned, width),
        "encoder.token_learners.0": tubelets * (places * (64 * width + 64 * learned) + places * learned * width),
        "head": 5 * width,
    }
    cost = measure_complexity(SMALL, SMALL_CLIP, 5)
    assert {stage.name: stage.multiply_adds for stage in cost.stages if stage.multiply_adds} == expected
    assert cost.multiply_adds == sum(expected.values())
    parameters = {stage.name: stage.parameters for stage in cost.stages}
    assert parameters["encoder.blocks.0"] == 12 * width**2 + 13 * width
    assert cost.parameters == cost.trainable_parameters == sum(parameters.values())
    without_attention = {op: flops for op, flops in flop_counter.flop_registry.items() if "attention" not in str(op)}
    monkeypatch.setattr(flop_counter, "flop_registry", without_attention)  # as in older versions of torch
    assert measure_complexity(SMALL, SMALL_CLIP, 5) == cost


def kept_bytes(model, clips):
    """Measure the distinct memory that autograd holds after a forward pass, without the weights; also the output."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(clips)
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in weights), output


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["vivit", "mini_vit"])
def test_memory_equals_that_of_a_real_run(architecture, autocast):
    config, clip = SMALL, SMALL_CLIP
    if architecture == "mini_vit":
        config = ModelConfig(architecture="mini_vit", width=32, head_width=16, mlp_width=48)
        clip = ClipConfig(num_frames=1, frame_size=(48, 48), short_side=48)
    model, shape = build_model(config, clip, 5), (clip.num_frames, 3, *clip.frame_size)
    with torch.autocast("cpu", autocast) if autocast else nullcontext():
        one, two, three = (kept_bytes(model, torch.randn(batch, *shape))[0] for batch in (1, 2, 3))
    assert two - one == three - two
    # Not exact in bf16: on fake tensors, the statistics of norms are bf16 rather than float32.
    tolerance = 1e-3 if autocast else 0.0
    assert measure_complexity(config, clip, 5, autocast).saved_bytes == pytest.approx(two - one, rel=tolerance)


def test_twin_without_token_learner():
    twin = replace(SMALL, token_learner=TokenLearnerConfig(num_tokens=0))
    assert complexity.without_token_learner(SMALL) == twin
    assert complexity.without_token_learner(twin) is None
    assert complexity.without_token_learner(ModelConfig(architecture="t2t_vit")) is None


def test_times_cover_every_stage_and_leave_no_hooks():
    model = build_model(SMALL, SMALL_CLIP, 5)
    clips = torch.randn(1, 4, 3, 32, 48)
    times = time_stages(model, clips, rounds=2)
    assert set(times) <= set(stage_names(model))
    assert {"embed", "encoder.blocks.2", "encoder.token_learners.0", "head"} <= set(times)
    assert all(seconds > 0 for seconds in (*times.values(), *time_passes(model, clips, rounds=2)))
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
