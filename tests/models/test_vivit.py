"""The four forms: attended tokens, gradients of every parameter, and errors of contradictory settings."""

from dataclasses import replace

import pytest
import torch

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model

CLIP = ClipConfig(num_frames=4, frame_size=(16, 24))  # a grid of 2 x 2 x 3 tokens
NONE = TokenLearnerConfig(num_tokens=0)
FORMS = ["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]
STAGES = {
    "none": NONE,
    "v1.1": TokenLearnerConfig(num_tokens=2, after_block=1),
    "v1 first": TokenLearnerConfig(num_tokens=2, after_block=0, version="v1"),
    "last": TokenLearnerConfig(num_tokens=2, after_block=3),
    "fuser": TokenLearnerConfig(num_tokens=2, after_block=1, fuser=True),
    "v1 fuser": TokenLearnerConfig(num_tokens=2, after_block=2, version="v1", pooling="mean", fuser=True),
}
SIZES = {"width": 24, "depth": 3, "num_heads": 4, "mlp_width": 48, "temporal_depth": 2, "tubelet": (2, 8, 8)}
SMALL = ModelConfig(**SIZES, token_learner=NONE)


def build(clip=CLIP, **changes):
    return build_model(replace(SMALL, **changes), clip, 5)


def without_zeros(model):
    """Draw values for parameters that start at 0, which would hide errors of other parts."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def clips():
    return torch.randn(2, CLIP.num_frames, 3, *CLIP.frame_size)


def cases():
    found = {"uniform": {"tubelet_sampling": "uniform"}}
    found["space_time"] = {"form": "factorised_self_attention", "attention_order": "space_time"}
    for form in FORMS:
        found |= {f"{form}-{name}": {"form": form, "token_learner": stage} for name, stage in STAGES.items()}
        found[f"{form}-max"] = {"form": form, "pooling": "max"}
        found[f"{form}-sum-sincos_3d"] = {"form": form, "pooling": "sum", "positions": "sincos_3d"}
    for form in FORMS[:2]:
        found[f"{form}-cls"] = {"form": form, "pooling": "cls"}
        found[f"{form}-cls-sincos_1d"] = {"form": form, "pooling": "cls", "positions": "sincos_1d"}
    found["no temporal encoder"] = {"temporal_depth": 0, "pooling": "cls"}
    for name in ("none", "v1.1", "fuser"):
        pooling = "cls" if name == "none" else "mean"
        found[f"tokens-{name}"] = {"temporal_input": "tokens", "pooling": pooling, "token_learner": STAGES[name]}
    return [pytest.param(replace(SMALL, **changes), id=name) for name, changes in found.items()]


@pytest.mark.parametrize("config", cases())
def test_every_parameter_has_a_gradient_and_clips_of_a_batch_are_independent(config):
    model = without_zeros(build_model(config, CLIP, 5))
    batch = clips()
    logits = model(batch)
    assert logits.shape == (2, 5)
    (logits * torch.randn(2, 5)).sum().backward()
    # These shift all inputs of a softmax or norm alike, without effect.
    invisible = (".k.bias", ".mix.bias", ".score.fc2.bias")
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in dead if not name.endswith(invisible)] == []
    with torch.no_grad():
        torch.testing.assert_close(model(batch[1:]), logits[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_dropout_and_stochastic_depth_are_off_in_eval(form):
    settings = {"form": form, "token_learner": replace(STAGES["fuser"], num_tokens=3)}
    model = without_zeros(build(dropout=0.3, attention_dropout=0.3, stochastic_depth=0.5, **settings))
    clip = clips()
    assert not torch.equal(model(clip), model(clip))
    model.eval()
    assert torch.equal(model(clip), model(clip))
    plain = build(**settings).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(clip), plain(clip))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_input_of_blocks_after_token_learner_and_of_a_fresh_fuser(form):
    model = build(form=form, token_learner=STAGES["v1.1"]).eval()
    shapes = []
    for block in model.encoder.blocks:
        block.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    model(clips())
    assert shapes == [(2, 2, 6, 24), (2, 2, 2, 24), (2, 2, 2, 24)]
    model = build(form=form, token_learner=STAGES["fuser"]).eval()
    tokens = model.embed(clips())
    shorter = model.encoder.blocks[0](model.encoder.positions(tokens))
    torch.testing.assert_close(model.encoder(tokens), model.encoder.norm(shorter))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stage", ["v1.1", "v1 first", "fuser"])
def test_token_maps_are_the_weights_that_made_the_tokens(form, stage):
    model = build(form=form, token_learner=STAGES[stage]).eval()
    seen = []
    model.encoder.token_learners[0].register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    clip = clips()
    model(clip)
    maps = model.token_maps(clip)
    assert maps.shape == (2, 2, 2, 2, 3)
    tokens, learned = seen[0]
    torch.testing.assert_close(maps.flatten(3) @ tokens, learned, rtol=1e-4, atol=1e-5)
    if STAGES[stage].version == "v1.1":
        torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 2, 2))


def test_fresh_values_are_the_references():
    model = build(width=96, pooling="cls")
    assert not model.head.weight.any()
    assert not model.encoder.cls.any()
    assert model.encoder.positions.weight.std().item() == pytest.approx(0.02, rel=0.15)
    for encoder in (build(position_std=0.7).encoder, build(position_std=0.7, depth=1).temporal_encoder):
        assert encoder.positions.weight.std().item() == pytest.approx(0.7, rel=0.2)
    query = model.encoder.blocks[0].attn.q
    assert query.weight.abs().max().item() == pytest.approx((6 / 192) ** 0.5, rel=0.01)
    assert not query.bias.any()
    assert 0 < model.encoder.blocks[0].mlp.fc1.bias.abs().max() < 1e-5
    fan_in = 3 * 2 * 8 * 8
    assert model.embed.proj.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.05)


def test_positions_and_class_tokens_do_not_decay():
    names = {f"{encoder}.{part}" for encoder in ("encoder", "temporal_encoder") for part in ("cls", "positions.weight")}
    assert build(pooling="cls").no_weight_decay() == names


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"num_heads": 5}, ("model.width", 24, "model.num_heads", 5)),
        ({"form": FORMS[3], "num_heads": 3}, ("model.num_heads", 3, FORMS[3])),
        ({"pooling": "first", "token_learner": STAGES["v1.1"]}, ("model.pooling", "'first'", "TokenLearner")),
        ({"pooling": "cls", "temporal_input": "places"}, ("model.pooling", "'cls'", "places")),
        ({"num_registers": 1, "temporal_input": "tokens"}, ("model.num_registers", 1, "tokens")),
        ({"token_learner": replace(STAGES["v1.1"], num_tokens=16)}, ("model.token_learner.num_tokens", 16, "0 to 6")),
        ({"token_learner": replace(STAGES["v1.1"], after_block=4)}, ("model.token_learner.after_block", 4, "0 to 3")),
        (
            {"token_learner": replace(STAGES["fuser"], after_block=3)},
            ("token_learner.after_block", 3, "0 to 2", "fuser"),
        ),
        ({"temporal_input": "tokens", "temporal_depth": 0}, ("model.temporal_input", "'tokens'", "pooled")),
        ({"temporal_input": "tokens", "form": "joint"}, ("model.temporal_input", "'tokens'", "joint")),
        ({"tubelet": (3, 8, 8)}, ("clip.num_frames", 4, "3 frames")),
    ],
)
def test_contradictions_are_named_by_key_value_and_allowed_values(changes, parts):
    with refused(*parts):
        build(**changes)
    with_background = replace(CLIP, background=True, short_side=0, std=(1.0, 1.0, 1.0))
    with refused("clip.background", "true", "4 pixels"):
        build(with_background, tubelet=(2, 2, 8))
    with refused("clip.background", "mini_vit"):
        build_model(ModelConfig(architecture="mini_vit"), with_background, 5)
    with refused("model.token_learner.num_tokens", 0, "1 or more"):
        build().token_maps(clips())
