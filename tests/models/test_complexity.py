"""Counted costs against the arithmetic of the layers, the papers' figures and what a real run keeps."""

import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import flop_counter

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, create_model
from vidtl.models.complexity import (
    REST,
    count_multiply_adds,
    measure_complexity,
    stage_names,
    time_passes,
    time_stages,
    without_token_learner,
)

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
    ("t2t_vit_7", {}, 1.147),
    ("t2t_vit_14", {}, 4.783),
    ("t2t_vit_19", {}, 8.480),
    ("t2t_vit_24", {}, 13.662),
    ("t2t_vit_t_14", {}, 6.089),
    ("t2t_vit_14", {"frame_size": (384, 384)}, 16.37),
    ("mini_vit", {"token_learner": TokenLearnerConfig(num_tokens=0)}, 0.1015),
    ("mini_vit", {}, 0.0798),
]

SMALL_CLIP = ClipConfig(num_frames=4, frame_size=(32, 48), short_side=48)
SMALL = ModelConfig(
    form="joint",
    width=24,
    depth=3,
    num_heads=3,
    tubelet=(2, 8, 8),
    pooling="mean",
    token_learner=TokenLearnerConfig(num_tokens=4, after_block=2),
)


@pytest.mark.parametrize(("name", "settings", "gmacs"), EXACT_GMACS)
def test_multiply_adds_are_those_of_the_layers(name: str, settings: dict[str, Any], gmacs: float) -> None:
    num_classes = 10 if name == "mini_vit" else 1000
    with torch.device("meta"):
        model = create_model(name, num_classes, **settings)
    assert count_multiply_adds(model, model.clip_config) / 1e9 == pytest.approx(gmacs, rel=2e-3)


def block(tokens: int, width: int) -> int:
    """Projections, products of attention, MLP of four times the width."""
    return 12 * tokens * width**2 + 2 * tokens**2 * width


def test_a_small_model_costs_exactly_what_its_layers_say() -> None:
    tubelets, places, learned, width = 2, 24, 4, 24
    n = tubelets * places
    embed = n * (2 * 8 * 8 * 3) * width
    learner = tubelets * (places * (64 * width + 64 * learned) + places * learned * width)
    cost = measure_complexity(SMALL, SMALL_CLIP, 5)
    stages = {stage.name: stage for stage in cost.stages}
    assert stages["embed"].multiply_adds == embed
    assert stages["encoder.blocks.0"].multiply_adds == stages["encoder.blocks.1"].multiply_adds == block(n, width)
    assert stages["encoder.blocks.2"].multiply_adds == block(tubelets * learned, width)
    assert stages["encoder.token_learners.0"].multiply_adds == learner
    assert stages["head"].multiply_adds == 5 * width
    assert stages[REST].multiply_adds == 0
    assert cost.multiply_adds == embed + 2 * block(n, width) + block(8, width) + learner + 5 * width
    assert stages["encoder.blocks.0"].parameters == 12 * width**2 + 13 * width
    assert cost.parameters == cost.trainable_parameters == sum(stage.parameters for stage in cost.stages)


def test_attention_is_counted_whatever_kernels_torch_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = measure_complexity(SMALL, SMALL_CLIP, 5).multiply_adds
    products = {op: flops for op, flops in flop_counter.flop_registry.items() if "attention" not in str(op)}
    monkeypatch.setattr(flop_counter, "flop_registry", products)
    assert measure_complexity(SMALL, SMALL_CLIP, 5).multiply_adds == counted


def kept_in_a_real_run(config: ModelConfig, clip: ClipConfig, batch: int, autocast: torch.dtype | None) -> int:
    """Bytes of distinct memory that autograd holds after a forward pass, without the weights."""
    model = build_model(config, clip, 5)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    clips = torch.randn(batch, clip.num_frames, 3, *clip.frame_size)
    autocast_context = torch.autocast("cpu", autocast) if autocast else nullcontext()
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast_context:
        model(clips)
        return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in weights)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["vivit", "mini_vit"])
def test_memory_is_what_a_real_run_keeps_per_clip(architecture: str, autocast: torch.dtype | None) -> None:
    clip = SMALL_CLIP if architecture == "vivit" else ClipConfig(num_frames=1, frame_size=(48, 48), short_side=48)
    mini_vit = ModelConfig(architecture="mini_vit", width=32, head_width=16, mlp_width=48)
    config = SMALL if architecture == "vivit" else mini_vit
    one, two, three = (kept_in_a_real_run(config, clip, batch, autocast) for batch in (1, 2, 3))
    assert two - one == three - two
    # Not exact in bf16: without values, torch takes the statistics of norms for bf16 where they are float32.
    tolerance = 1e-3 if autocast else 0.0
    assert measure_complexity(config, clip, 5, autocast).saved_bytes == pytest.approx(two - one, rel=tolerance)


def test_every_parameter_belongs_to_one_stage() -> None:
    config = ModelConfig(architecture="t2t_vit", width=24, depth=2, num_heads=3, token_width=16)
    cost = measure_complexity(config, ClipConfig(num_frames=1, frame_size=(32, 32), short_side=32), 5)
    assert sum(stage.parameters for stage in cost.stages) == cost.parameters
    assert cost.parameters - cost.trainable_parameters == 5 * 24 + 2 * 8 * 16
    assert {"tokens.layers.0", "tokens.layers.1", "tokens.proj", "blocks.1"} <= {stage.name for stage in cost.stages}


def test_the_twin_without_token_learner_differs_in_nothing_else() -> None:
    twin = without_token_learner(SMALL)
    assert twin is not None
    assert twin == replace(SMALL, token_learner=TokenLearnerConfig(num_tokens=0))
    assert without_token_learner(twin) is None
    mini = without_token_learner(ModelConfig(architecture="mini_vit"))
    assert mini is not None
    assert mini.token_learner.num_tokens == 0
    assert without_token_learner(ModelConfig(architecture="t2t_vit")) is None


def test_times_cover_every_stage_and_leave_no_hooks() -> None:
    model = build_model(SMALL, SMALL_CLIP, 5)
    clips = torch.randn(1, 4, 3, 32, 48)
    times = time_stages(model, clips, rounds=2)
    assert set(times) <= set(stage_names(model))
    assert {"embed", "encoder.blocks.2", "encoder.token_learners.0", "head"} <= set(times)
    assert all(seconds > 0 for seconds in (*times.values(), *time_passes(model, clips, rounds=2)))
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_tool_prints_totals_savings_and_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import profile_model

    options = "--model.architecture mini_vit --num_classes 10 --time --rounds 1"
    clip = "--clip.num_frames 1 --clip.frame_size [48,48] --clip.short_side 52"
    monkeypatch.setattr(sys, "argv", ["profile_model.py", *f"{options} {clip}".split()])
    profile_model.main()
    lines = capsys.readouterr().out.splitlines()
    assert any("blocks.0 ... 2" in line and "990,720" in line for line in lines)
    assert any("total" in line and "1,355,850" in line and "0.0798" in line for line in lines)
    assert any("78.6% of the multiply-adds" in line and "+11,200 parameters" in line for line in lines)
    assert any(line.startswith("forward and backward:") for line in lines)
