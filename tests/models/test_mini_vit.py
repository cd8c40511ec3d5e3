"""The mini-ViT of the CIFAR-10 study: counts, differences of its blocks from those of ViViT, and T2T tokens."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import nn

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.complexity import count_parameters

CLIP = ClipConfig(num_frames=1, frame_size=(48, 48), short_side=52, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
POSITIONS = 64 * 128
T2T = ("t2t_performer", "t2t_transformer")


def settings(tokens=None, version=None, **changes):
    stage = TokenLearnerConfig(num_tokens=tokens, version=version, pooling="sum" if version == "v1.1" else None)
    return ModelConfig(architecture="mini_vit", token_learner=stage, **changes)


def mini_vit(config, clip=CLIP):
    return build_model(config, clip, 10)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (settings(0), 1_336_458),
        (settings(0, depth=8), 2_657_418),
        (settings(4), 1_336_458 + 5_296),
        (settings(8), 1_336_458 + 11_200),
        (settings(8, "v1.1"), 1_336_458 + 2 * 128 + 128 * 64 + 64 + 64 * 8 + 8),
    ],
)
def test_parameter_counts_are_the_studys(config, count):
    with torch.device("meta"):
        assert count_parameters(mini_vit(config)) == count + POSITIONS


def reference_block(block, x_BND, heads, head_width):
    """Compute the study's block from its description: wide heads, two GELUs, epsilon 1e-6."""
    normed = F.layer_norm(x_BND, x_BND.shape[-1:], block.norm1.weight, block.norm1.bias, 1e-6)
    q, k, v = (
        layer(normed).unflatten(-1, (heads, head_width)).transpose(1, 2)
        for layer in (block.attn.q, block.attn.k, block.attn.v)
    )
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(head_width), dim=-1)
    x_BND = x_BND + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    normed = F.layer_norm(x_BND, x_BND.shape[-1:], block.norm2.weight, block.norm2.bias, 1e-6)
    return x_BND + F.gelu(block.mlp.fc2(F.gelu(block.mlp.fc1(normed))))


def test_the_whole_model_follows_the_study():
    torch.manual_seed(0)
    model = mini_vit(settings(4, width=16, num_heads=2, head_width=12, mlp_width=24)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images = torch.rand(2, 1, 3, 48, 48)
    kernel = model.proj.weight.reshape(16, 3, 6, 6)
    x = F.conv2d(images[:, 0], kernel, model.proj.bias, stride=6).flatten(2).transpose(1, 2) + model.positions.weight
    for block in model.blocks[:3]:
        x = reference_block(block, x, heads=2, head_width=12)
    maps = F.layer_norm(x, (16,), model.token_learner.norm.weight, model.token_learner.norm.bias, 1e-6)
    maps = maps.transpose(1, 2).reshape(2, 16, 8, 8)
    for i, conv in enumerate(model.token_learner.score.convs):
        maps = F.conv2d(maps, conv.weight, padding=1)
        maps = torch.sigmoid(maps) if i == 3 else F.gelu(maps, approximate="tanh")
    torch.testing.assert_close(model.token_maps(images), maps.unsqueeze(1))
    x = torch.stack([(maps[:, s].flatten(1).unsqueeze(-1) * x).mean(dim=1) for s in range(4)], dim=1)
    x = reference_block(model.blocks[3], x, heads=2, head_width=12)
    x = F.layer_norm(x, (16,), model.norm.weight, model.norm.bias, 1e-6).mean(dim=1)
    torch.testing.assert_close(model(images), model.head(x), rtol=1e-4, atol=1e-5)


def test_dropout_is_where_the_study_has_it():
    model = mini_vit(settings())
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    expected = {"dropout": 0.1} | {f"blocks.{i}.mlp.dropout": 0.1 for i in range(4)}
    assert {name: rate for name, rate in rates.items() if rate} == expected
    assert {block.attn.attention_dropout for block in model.blocks} == {0.1}
    assert mini_vit(settings(tokenizer="t2t_performer", dropout=0.3)).proj.layers[0].dropout.p == 0.3


def test_weights_start_as_keras_starts_them():
    torch.manual_seed(0)
    model = mini_vit(settings())
    limits = {"blocks.0.attn.q": 16896, "blocks.0.attn.proj": 1024, "blocks.0.mlp.fc1": 384, "proj": 4716, "head": 138}
    for name, fans in limits.items():
        largest = model.get_submodule(name).weight.abs().max().item()
        assert 0.95 < largest / math.sqrt(6 / fans) <= 1, name
    assert not model.blocks[2].mlp.fc2.bias.any()


@pytest.mark.parametrize("tokenizer", ["tubelet", *T2T])
def test_every_trainable_parameter_gets_a_gradient(tokenizer):
    torch.manual_seed(0)
    model = mini_vit(settings(tokenizer=tokenizer))
    model(torch.rand(2, 1, 3, 48, 48)).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == ({"proj.layers.0.features"} if tokenizer == "t2t_performer" else set())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("tokenizer", T2T)
@pytest.mark.parametrize(("height", "width"), [(12, 30), (6, 6)])
def test_t2t_tokens_fill_the_grid_of_the_patches(tokenizer, height, width):
    clip = ClipConfig(num_frames=1, frame_size=(height, width), short_side=48)
    model = mini_vit(settings(1, tokenizer=tokenizer, width=16), clip).eval()
    images = torch.rand(2, 1, 3, height, width)
    grid = (height // 6, width // 6)
    assert model.positions.grid[1:] == grid
    assert model.proj(images).shape == (2, 1, grid[0] * grid[1], 16)
    assert model(images).shape == (2, 10)
    assert model.token_maps(images).shape == (2, 1, 1, *grid)


def test_receptive_field_of_a_t2t_token():
    """7 pixels 3 apart, then 3 squares 2 apart: 13 pixels, starting 5 before the token's own 6."""
    proj = mini_vit(settings(tokenizer="t2t_performer")).proj
    proj.layers[0] = nn.Linear(3 * 7 * 7, 64)
    images = torch.rand(1, 1, 3, 48, 48, requires_grad=True)
    proj(images)[0, 0, 3 * 8 + 4].sum().backward()
    assert images.grad is not None
    seen = images.grad[0, 0].abs().sum(dim=0).nonzero()
    assert seen.min(dim=0).values.tolist() == [3 * 6 - 5, 4 * 6 - 5]
    assert seen.max(dim=0).values.tolist() == [3 * 6 + 7, 4 * 6 + 7]


@pytest.mark.parametrize(
    ("clip", "config", "parts"),
    [
        (ClipConfig(num_frames=2), settings(), ("clip.num_frames", 2, "mini_vit")),
        (ClipConfig(num_frames=1, frame_size=(50, 48)), settings(), ("clip.frame_size", [50, 48], "6 pixels")),
        (ClipConfig(num_frames=1, frame_size=(48, 50)), settings(tokenizer=T2T[0]), ("[48, 50]", "6 pixels")),
        (CLIP, settings(65), ("model.token_learner.num_tokens", 65, "0 to 64")),
        (CLIP, settings(4, depth=2), ("model.token_learner.after_block", 3, "0 to 2")),
        (CLIP, settings(tokenizer=T2T[1], tubelet=(1, 8, 8)), ("model.tubelet", [1, 8, 8], [1, 6, 6], T2T[1])),
        (CLIP, settings(tubelet=(2, 6, 6)), ("model.tubelet", [2, 6, 6])),
    ],
)
def test_settings_that_do_not_fit_are_refused(clip, config, parts):
    with refused(*parts):
        mini_vit(config, clip)
    with refused("model.token_learner.num_tokens", 0):
        mini_vit(settings(0)).token_maps(torch.rand(1, 1, 3, 48, 48))
