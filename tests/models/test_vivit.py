"""The four forms: who sees whom, that every parameter learns, and what contradictory settings are told."""

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
SMALL = ModelConfig(
    width=24, depth=3, num_heads=4, mlp_width=48, temporal_depth=2, tubelet=(2, 8, 8), token_learner=NONE
)


def build(config, clip=CLIP, num_classes=5):
    return build_model(config, clip, num_classes)


def without_zeros(model):
    """Parameters that start at 0 get values, so that nothing is hidden behind them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def clips(num=2):
    return torch.randn(num, CLIP.num_frames, 3, *CLIP.frame_size)


def cases():
    for form in FORMS:
        for name, stage in STAGES.items():
            yield pytest.param(replace(SMALL, form=form, token_learner=stage), id=f"{form}-{name}")
        yield pytest.param(replace(SMALL, form=form, pooling="max"), id=f"{form}-max")
        yield pytest.param(replace(SMALL, form=form, pooling="sum", positions="sincos_3d"), id=f"{form}-sum-sincos_3d")
    for form in FORMS[:2]:
        yield pytest.param(replace(SMALL, form=form, pooling="cls"), id=f"{form}-cls")
        yield pytest.param(replace(SMALL, form=form, pooling="cls", positions="sincos_1d"), id=f"{form}-cls-sincos_1d")
    encoder = replace(SMALL, form="factorised_encoder")
    yield pytest.param(replace(encoder, temporal_depth=0, pooling="cls"), id="no temporal encoder")
    yield pytest.param(replace(encoder, temporal_input="tokens", pooling="cls"), id="tokens to the temporal encoder")
    for name in ("v1.1", "fuser"):
        stage = STAGES[name]
        yield pytest.param(replace(encoder, temporal_input="tokens", token_learner=stage), id=f"tokens-{name}")
    yield pytest.param(replace(SMALL, tubelet_sampling="uniform"), id="uniform")
    yield pytest.param(replace(SMALL, form="factorised_self_attention", attention_order="space_time"), id="space_time")


@pytest.mark.parametrize("config", list(cases()))
def test_every_parameter_learns_and_clips_of_a_batch_do_not_meet(config):
    model = without_zeros(build(config))
    batch = clips()
    logits = model(batch)
    assert logits.shape == (2, 5)
    (logits * torch.randn(2, 5)).sum().backward()
    # Softmax and norms cannot see these: they shift all of their inputs alike.
    invisible = (".k.bias", ".mix.bias", ".score.fc2.bias")
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in dead if not name.endswith(invisible)] == []
    with torch.no_grad():
        torch.testing.assert_close(model(batch[1:]), logits[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_dropout_and_stochastic_depth_are_off_in_eval(form):
    stage = replace(STAGES["fuser"], num_tokens=3)
    model = without_zeros(
        build(replace(SMALL, form=form, dropout=0.3, attention_dropout=0.3, stochastic_depth=0.5, token_learner=stage))
    )
    clip = clips()
    assert not torch.equal(model(clip), model(clip))
    model.eval()
    assert torch.equal(model(clip), model(clip))
    plain = without_zeros(build(replace(SMALL, form=form, token_learner=stage))).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(clip), plain(clip))


@torch.no_grad()
def test_the_spatial_encoder_is_the_joint_one_on_each_timestep_alone():
    model = build(replace(SMALL, form="factorised_encoder", pooling="cls")).eval()
    alone = build(replace(SMALL, form="joint", pooling="cls"), replace(CLIP, num_frames=2)).eval()
    alone.encoder.load_state_dict(model.encoder.state_dict())
    clip = clips()
    together = model.encoder(model.embed(clip))
    for timestep in range(2):
        tokens = model.embed(clip)[:, timestep : timestep + 1]
        torch.testing.assert_close(together[:, timestep : timestep + 1], alone.encoder(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_blocks_after_token_learner_see_its_tokens(form):
    model = build(replace(SMALL, form=form, token_learner=STAGES["v1.1"])).eval()
    shapes = []
    for block in model.encoder.blocks:
        block.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    model(clips())
    assert shapes == [(2, 2, 6, 24), (2, 2, 2, 24), (2, 2, 2, 24)]


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_a_fresh_fuser_passes_features_on_unchanged(form):
    model = build(replace(SMALL, form=form, token_learner=STAGES["fuser"])).eval()
    tokens = model.embed(clips())
    shorter = model.encoder.blocks[0](model.encoder.positions(tokens))
    torch.testing.assert_close(model.encoder(tokens), model.encoder.norm(shorter))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stage", ["v1.1", "v1 first", "fuser"])
def test_token_maps_are_the_weights_that_made_the_tokens(form, stage):
    model = build(replace(SMALL, form=form, token_learner=STAGES[stage])).eval()
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


def test_without_token_learner_there_are_no_maps():
    with refused("model.token_learner.num_tokens", 0, "1 or more"):
        build(SMALL).token_maps(clips())


def test_temporal_attention_learns_from_a_zero_output_projection():
    """Zeros in all of it, as the paper words it, would leave nothing but the output bias to learn."""
    model = without_zeros(build(replace(SMALL, form="factorised_self_attention")))
    attention = model.encoder.blocks[1].attn_time
    torch.nn.init.zeros_(attention.proj.weight)
    before = {name: parameter.clone() for name, parameter in attention.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clip, target = clips(), torch.tensor([0, 1])
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(clip), target).backward()
        optimizer.step()
    for name in ("q.weight", "k.weight", "v.weight", "proj.weight"):
        assert not torch.equal(attention.get_parameter(name), before[name]), name


def test_frames_of_a_clip_share_their_stochastic_depth():
    model = build(replace(SMALL, form="factorised_encoder", stochastic_depth=0.5))
    block = model.encoder.blocks[-1].train()
    tokens = torch.randn(64, 2, 6, 24)
    changed = (block(tokens) != tokens).any(-1).any(-1)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert 0 < changed[:, 0].sum() < 64


def test_fresh_values_are_the_references():
    model = build(replace(SMALL, width=96, pooling="cls"))
    assert not model.head.weight.any()
    assert not model.encoder.cls.any()
    assert model.encoder.positions.weight.std().item() == pytest.approx(0.02, rel=0.15)
    query = model.encoder.blocks[0].attn.q
    assert query.weight.abs().max().item() == pytest.approx((6 / 192) ** 0.5, rel=0.01)
    assert not query.bias.any()
    assert 0 < model.encoder.blocks[0].mlp.fc1.bias.abs().max() < 1e-5
    fan_in = 3 * 2 * 8 * 8
    assert model.embed.proj.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.05)


def test_positions_and_class_tokens_do_not_decay():
    assert build(replace(SMALL, pooling="cls")).no_weight_decay() == {
        "encoder.cls",
        "encoder.positions.weight",
        "temporal_encoder.cls",
        "temporal_encoder.positions.weight",
    }


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"num_heads": 5}, ("model.width", 24, "model.num_heads", 5)),
        ({"form": "factorised_dot_product", "num_heads": 3}, ("model.num_heads", 3, "factorised_dot_product")),
        (
            {"form": "factorised_self_attention", "pooling": "cls"},
            ("model.pooling", "'cls'", "mean, max or sum", "factorised_self_attention"),
        ),
        ({"pooling": "cls", "token_learner": STAGES["v1.1"]}, ("model.pooling", "'cls'", "TokenLearner", 2)),
        (
            {"token_learner": TokenLearnerConfig(num_tokens=16, after_block=1)},
            ("model.token_learner.num_tokens", 16, "0 to 6"),
        ),
        (
            {"token_learner": TokenLearnerConfig(num_tokens=2, after_block=4)},
            ("model.token_learner.after_block", 4, "0 to 3"),
        ),
        (
            {"token_learner": TokenLearnerConfig(num_tokens=2, after_block=3, fuser=True)},
            ("model.token_learner.after_block", 3, "0 to 2", "fuser"),
        ),
        ({"temporal_input": "tokens", "temporal_depth": 0}, ("model.temporal_input", "'tokens'", "pooled")),
        ({"temporal_input": "tokens", "form": "joint"}, ("model.temporal_input", "'tokens'", "joint")),
        ({"tubelet": (3, 8, 8)}, ("clip.num_frames", 4, "3 frames")),
    ],
)
def test_contradictions_are_named_by_key_value_and_what_is_allowed(changes, parts):
    with refused(*parts):
        build(replace(SMALL, **changes))
