"""Attention under masks, dropout and stochastic depth in training only; TokenLearner and TokenFuser as modules."""

import pytest
import torch
from einops import rearrange
from torch.nn import functional

from tests.refusals import refused
from vidtl.models.attention import Attention
from vidtl.models.blocks import FactorisedSelfAttentionBlock, Mlp, StochasticDepth, drop_path_ramp
from vidtl.models.complexity import count_parameters
from vidtl.models.token_learner import TokenFuser, TokenLearner

B, T, N, D, H = 2, 3, 5, 24, 4

TIME, PLACE = torch.arange(T).repeat_interleave(N), torch.arange(N).repeat(T)
SAME_TIME, SAME_PLACE = TIME[:, None] == TIME, PLACE[:, None] == PLACE
MASKS = {
    "joint": [torch.ones(T * N, T * N, dtype=torch.bool)] * H,
    "space": [SAME_TIME] * H,
    "time": [SAME_PLACE] * H,
    "time_and_space": [SAME_PLACE] * (H // 2) + [SAME_TIME] * (H // 2),
}


def masked(attention, tokens_BtND):
    """Compute joint attention over t N with a mask per head, independently of the code under test."""
    flat = rearrange(tokens_BtND, "B t N D -> B (t N) D")
    q, k, v = (rearrange(layer(flat), "B L (H d) -> B H L d", H=H) for layer in (attention.q, attention.k, attention.v))
    scores = (q @ k.transpose(-2, -1)) / q.shape[-1] ** 0.5
    mixed = scores.masked_fill(~torch.stack(MASKS[attention.axes]), float("-inf")).softmax(-1) @ v
    out = attention.proj(rearrange(mixed, "B H L d -> B L (H d)"))
    return rearrange(out, "B (t N) D -> B t N D", N=tokens_BtND.shape[2])


@torch.no_grad()
@pytest.mark.parametrize("head_width", [None, 10])
@pytest.mark.parametrize("axes", MASKS)
def test_each_axis_equals_joint_attention_under_its_mask(axes, head_width):
    attention = Attention(D, H, axes=axes, head_width=head_width).eval()
    tokens = torch.randn(B, T, N, D)
    torch.testing.assert_close(attention(tokens), masked(attention, tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("order", ["time_space", "space_time"])
def test_factorised_self_attention_block_is_two_masked_attentions_and_an_mlp(order):
    over_time, over_space = Attention(D, H, axes="time"), Attention(D, H, axes="space")
    both = (over_time, over_space) if order == "time_space" else (over_space, over_time)
    block = FactorisedSelfAttentionBlock(D, both, Mlp(D, 2 * D, D)).eval()
    tokens = expected = torch.randn(B, T, N, D)
    for axis in order.split("_"):
        expected = expected + masked(getattr(block, f"attn_{axis}"), getattr(block, f"norm_{axis}")(expected))
    expected = expected + block.mlp(block.norm_mlp(expected))
    torch.testing.assert_close(block(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rates", [{"attention_dropout": 0.5}, {"dropout": 0.5}])
def test_dropout_is_active_in_training_only(rates):
    attention = Attention(D, H, **rates)
    tokens = torch.randn(2, 1, 6, D)
    assert not torch.equal(attention(tokens), attention(tokens))
    attention.eval()
    assert torch.equal(attention(tokens), attention(tokens))


def test_stochastic_depth_drops_whole_examples():
    branch = torch.ones(4000, 2, 3)
    for rescale, kept_value in ((False, 1.0), (True, 1 / 0.7)):
        dropped = StochasticDepth(0.3, rescale)(branch)
        assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
        assert dropped.unique().tolist() == pytest.approx([0.0, kept_value])
        assert (dropped[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert StochasticDepth(0.3).eval()(branch) is branch
    assert drop_path_ramp(0.2, 5) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_ramp(0.2, 1) == [0]


@torch.no_grad()
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_maps_weigh_the_tokens_before_the_norm(leading):
    tokens = torch.randn(*leading, 9, 12) * 3 + 1
    for version, pooling, share in (("v1", "sum", 1), ("v1", "mean", 1 / 9), ("v1.1", "sum", 1)):
        module = TokenLearner(12, 4, version, pooling)
        learned, maps = module(tokens, return_maps=True)
        expected = (maps[..., None] * tokens[..., None, :, :]).sum(-2) * share
        torch.testing.assert_close(learned, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module(tokens), learned)
        assert ((maps > 0) & (maps < 1)).all()
        assert torch.allclose(maps.sum(-1), torch.ones(*leading, 4)) is (version == "v1.1")


@torch.no_grad()
def test_v1_convolves_over_the_given_grid():
    module = TokenLearner(12, 4, "v1")
    tokens = torch.randn(1, 12, 12)
    image = module.norm(tokens).transpose(1, 2).reshape(1, 12, 2, 6)
    for position, conv in enumerate(module.score.convs):
        image = functional.conv2d(image, conv.weight, padding=1)
        image = functional.gelu(image, approximate="tanh") if position < 3 else image
    torch.testing.assert_close(module.maps(tokens, (2, 6)), image.sigmoid().flatten(2), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(module(tokens, (2, 6)), module(tokens, (6, 2)))
    with refused("tokens", 12, "square", "grid"):
        module(tokens)
    with refused("grid", (3, 3), "= 12"):
        module(tokens, (3, 3))
    assert TokenLearner(12, 4)(tokens).shape == (1, 4, 12)


@torch.no_grad()
def test_fuser_writes_a_weighted_sum_of_mixed_tokens_to_every_place():
    assert count_parameters(TokenFuser(768, 8)) == 54_416
    fuser = TokenFuser(12, 4)
    learned, features = torch.randn(2, 4, 12), torch.randn(2, 9, 12)
    assert not fuser(learned, features).any()
    torch.nn.init.normal_(fuser.mix.weight)
    mixed = torch.einsum("os,bsd->bod", fuser.mix.weight, fuser.norm1(learned)) + fuser.mix.bias[:, None]
    weights = torch.sigmoid(fuser.score(fuser.norm_features(features)))
    expected = torch.einsum("bns,bsd->bnd", weights, fuser.norm2(mixed))
    torch.testing.assert_close(fuser(learned, features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"num_tokens": 0}, ("num_tokens", 0, "1 or more")),
        ({"pooling": "avg", "version": "v1"}, ("pooling", "'avg'", "sum, mean")),
        ({"pooling": "mean"}, ("pooling", "'mean'", "sum")),
    ],
)
def test_invalid_values_are_refused(settings, parts):
    with refused(*parts):
        TokenLearner(**{"dim": 24, "num_tokens": 4, **settings})
