"""Attention over grid axes is joint attention under a mask, and drops nothing outside training."""

import pytest
import torch
from einops import rearrange

from tests.refusals import refused
from vidtl.models.blocks import Attention, FactorisedSelfAttentionBlock, Mlp, StochasticDepth, drop_path_ramp

B, T, N, D, H = 2, 3, 5, 24, 4


def masked_heads(attention, tokens_BtND, allowed_HLL):
    """Joint attention over t N with a mask per head, written out independently of the code under test."""
    flat = rearrange(tokens_BtND, "B t N D -> B (t N) D")
    q, k, v = (rearrange(layer(flat), "B L (H d) -> B H L d", H=H) for layer in (attention.q, attention.k, attention.v))
    scores = (q @ k.transpose(-2, -1)) / q.shape[-1] ** 0.5
    mixed = scores.masked_fill(~allowed_HLL, float("-inf")).softmax(-1) @ v
    out = attention.proj(rearrange(mixed, "B H L d -> B L (H d)"))
    return rearrange(out, "B (t N) D -> B t N D", N=tokens_BtND.shape[2])


def allowed(kind):
    time, place = (
        rearrange(grid, "t N -> (t N)") for grid in torch.meshgrid(torch.arange(T), torch.arange(N), indexing="ij")
    )
    same_time, same_place = time[:, None] == time, place[:, None] == place
    return {"joint": torch.ones_like(same_time), "space": same_time, "time": same_place}[kind]


@torch.no_grad()
@pytest.mark.parametrize("head_width", [None, 10])
@pytest.mark.parametrize(
    ("axes", "kinds"),
    [
        ("joint", ["joint"] * H),
        ("space", ["space"] * H),
        ("time", ["time"] * H),
        ("time_and_space", ["time"] * (H // 2) + ["space"] * (H // 2)),
    ],
)
def test_each_axis_is_joint_attention_under_its_mask(axes, kinds, head_width):
    attention = Attention(D, H, axes=axes, head_width=head_width).eval()
    tokens = torch.randn(B, T, N, D)
    mask = torch.stack([allowed(kind) for kind in kinds])
    torch.testing.assert_close(attention(tokens), masked_heads(attention, tokens, mask), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("order", ["time_space", "space_time"])
def test_factorised_self_attention_block_is_two_masked_attentions_and_an_mlp(order):
    over_time, over_space = Attention(D, H, axes="time"), Attention(D, H, axes="space")
    block = FactorisedSelfAttentionBlock(D, over_time, over_space, Mlp(D, 2 * D, D), order=order).eval()
    tokens = expected = torch.randn(B, T, N, D)
    for axis in order.split("_"):
        norm, attention = getattr(block, f"norm_{axis}"), getattr(block, f"attn_{axis}")
        expected = expected + masked_heads(attention, norm(expected), allowed(axis).expand(H, -1, -1))
    expected = expected + block.mlp(block.norm_mlp(expected))
    torch.testing.assert_close(block(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rates", [{"attention_dropout": 0.5}, {"dropout": 0.5}])
def test_each_dropout_is_on_in_training_and_off_in_eval(rates):
    attention = Attention(D, H, **rates)
    tokens = torch.randn(2, 1, 6, D)
    assert not torch.equal(attention(tokens), attention(tokens))
    attention.eval()
    assert torch.equal(attention(tokens), attention(tokens))


def test_stochastic_depth_drops_whole_examples_and_rescales_on_request():
    branch = torch.ones(4000, 2, 3)
    for rescale, kept_value in ((False, 1.0), (True, 1 / 0.7)):
        dropped = StochasticDepth(0.3, rescale)(branch)
        assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
        assert dropped.unique().tolist() == pytest.approx([0.0, kept_value])
        assert (dropped[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert StochasticDepth(0.3).eval()(branch) is branch


def test_stochastic_depth_rises_from_nothing_to_the_rate():
    assert drop_path_ramp(0.2, 5) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_ramp(0.2, 1) == [0]


def test_heads_must_fit():
    with refused("width", 24, "num_heads", 5):
        Attention(24, 5)
    with refused("num_heads", 3, "even"):
        Attention(24, 3, axes="time_and_space")
