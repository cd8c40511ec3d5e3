"""Attention over grid axes is joint attention under a mask, by either kernel, and drops nothing outside training."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange

from vidtl.errors import UserError
from vidtl.models import attention as module
from vidtl.models.attention import (
    DotProductAttention,
    JointAttention,
    SelfAttention,
    SpatialAttention,
    TemporalAttention,
    attend,
    attend_written_out,
)
from vidtl.models.blocks import BlockConfig, FactorisedSelfAttentionBlock, StochasticDepth, drop_path_ramp

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
@pytest.mark.parametrize(
    ("cls", "kinds"),
    [
        (JointAttention, ["joint"] * H),
        (SpatialAttention, ["space"] * H),
        (TemporalAttention, ["time"] * H),
        (DotProductAttention, ["time"] * (H // 2) + ["space"] * (H // 2)),
    ],
)
def test_each_axis_is_joint_attention_under_its_mask(cls, kinds):
    attention = cls(D, H).eval()
    tokens = torch.randn(B, T, N, D)
    mask = torch.stack([allowed(kind) for kind in kinds])
    torch.testing.assert_close(attention(tokens), masked_heads(attention, tokens, mask), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("order", ["time_space", "space_time"])
def test_factorised_self_attention_block_is_two_masked_attentions_and_an_mlp(order):
    block = FactorisedSelfAttentionBlock(BlockConfig(width=D, num_heads=H, mlp_width=2 * D), order).eval()
    tokens = expected = torch.randn(B, T, N, D)
    for axis in order.split("_"):
        norm, attention = getattr(block, f"norm_{axis}"), getattr(block, f"attn_{axis}")
        expected = expected + masked_heads(attention, norm(expected), allowed(axis).expand(H, -1, -1))
    expected = expected + block.mlp(block.norm_mlp(expected))
    torch.testing.assert_close(block(tokens), expected, rtol=1e-4, atol=1e-5)


def test_both_kernels_agree_in_value_and_gradient():
    qkv = [torch.randn(2, 3, 7, 8, requires_grad=True) for _ in range(3)]
    results = []
    for kernel in (attend, attend_written_out):
        for scale in (None, 0.3):
            out = kernel(*qkv, scale=scale)
            results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
    for first, second in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(results[0][0], results[1][0])


@pytest.mark.parametrize(
    ("dtype", "training", "length", "has_bf16", "dropout_p", "device", "written_out"),
    [
        (torch.bfloat16, True, 196, True, 0.0, "cpu", True),
        (torch.bfloat16, True, 196, False, 0.0, "cpu", False),
        (torch.bfloat16, False, 196, True, 0.0, "cpu", False),
        (torch.float32, True, 196, True, 0.0, "cpu", False),
        (torch.bfloat16, True, 3136, True, 0.0, "cpu", False),
        (torch.float32, True, 196, False, 0.1, "cpu", True),
        (torch.float32, True, 3136, False, 0.1, "cpu", False),
        (torch.float32, True, 196, False, 0.1, "meta", False),
    ],
)
def test_written_out_attention_only_on_a_cpu_with_dropout_or_in_bf16_training(
    monkeypatch, dtype, training, length, has_bf16, dropout_p, device, written_out
):
    monkeypatch.setattr(module, "_cpu_multiplies_bf16", lambda: has_bf16)
    q = torch.empty(1, 1, length, 8, dtype=dtype, requires_grad=training, device=device)
    assert module._written_out_is_faster(q, q, dropout_p) is written_out


@pytest.mark.parametrize("kernel", [attend_written_out, F.scaled_dot_product_attention])
def test_both_kernels_drop_probabilities_and_scale_up_the_others(kernel):
    q, k = (torch.randn(20, 3, 16, 8) for _ in range(2))
    v = torch.eye(16).expand(20, 3, 16, 16)  # so that the result is the probabilities
    probabilities = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1)
    dropped = kernel(q, k, v, dropout_p=0.4)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], probabilities[kept] / 0.6, rtol=1e-4, atol=1e-5)
    assert kept.float().mean().item() == pytest.approx(0.6, abs=0.02)


def test_attention_dropout_is_off_in_eval_and_on_in_training():
    attention = SelfAttention(D, H, attention_dropout=0.5, dropout=0.5)
    tokens = torch.randn(2, 6, D)
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
    with pytest.raises(UserError, match="width is 24; allowed: multiples of the number of attention heads, 5"):
        SelfAttention(24, 5)
    with pytest.raises(UserError, match=r"model\.num_heads is 3; allowed: even numbers"):
        DotProductAttention(24, 3)
