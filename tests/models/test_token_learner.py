"""TokenLearner and TokenFuser alone: shapes, maps, sizes as published, and grids that are not square."""

import pytest
import torch
from torch.nn import functional

from tests.refusals import refused
from vidtl.models.token_learner import TokenFuser, TokenLearner

VERSIONS = ["v1", "v1.1"]


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_any_leading_axes(version, leading):
    module = TokenLearner(12, 4, version)
    tokens = torch.randn(*leading, 9, 12)
    learned, maps = module(tokens, return_maps=True)
    assert learned.shape == (*leading, 4, 12)
    assert maps.shape == (*leading, 4, 9)
    torch.testing.assert_close(module(tokens), learned)
    if leading:
        torch.testing.assert_close(module(tokens[-1:]), learned[-1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_maps_weigh_the_tokens_as_they_are():
    tokens = torch.randn(2, 9, 12) * 3 + 1
    for version, pooling, share in (("v1", "sum", 1), ("v1", "mean", 1 / 9), ("v1.1", "sum", 1)):
        learned, maps = TokenLearner(12, 4, version, pooling)(tokens, return_maps=True)
        expected = (maps[..., None] * tokens[:, None]).sum(2) * share
        torch.testing.assert_close(learned, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_maps_are_distributions_in_v11_and_gates_in_v1():
    tokens = torch.randn(2, 9, 12)
    softmaxed, gates = TokenLearner(12, 4, "v1.1").maps(tokens), TokenLearner(12, 4, "v1").maps(tokens)
    torch.testing.assert_close(softmaxed.sum(-1), torch.ones(2, 4))
    assert (softmaxed > 0).all()
    assert ((gates > 0) & (gates < 1)).all()
    assert not torch.allclose(gates.sum(-1), torch.ones(2, 4))


@torch.no_grad()
def test_v1_sees_the_grid_it_is_given():
    module = TokenLearner(12, 4, "v1")
    tokens = torch.randn(1, 12, 12)
    image = module.norm(tokens).transpose(1, 2).reshape(1, 12, 2, 6)
    for position, conv in enumerate(module.score.convs):
        image = functional.conv2d(image, conv.weight, padding=1)
        image = functional.gelu(image, approximate="tanh") if position < 3 else image
    torch.testing.assert_close(module.maps(tokens, (2, 6)), image.sigmoid().flatten(2), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(module(tokens, (2, 6)), module(tokens, (6, 2)))


def test_v1_refuses_to_guess_a_grid_that_is_not_square():
    module = TokenLearner(12, 4, "v1")
    with refused("12 tokens", "square", "grid"):
        module(torch.zeros(1, 12, 12))
    with refused("grid", (3, 3), "= 12"):
        module(torch.zeros(1, 12, 12), (3, 3))
    assert TokenLearner(12, 4)(torch.zeros(1, 12, 12)).shape == (1, 4, 12)


@pytest.mark.parametrize(
    ("width", "num_tokens", "v1", "v11"),
    [(768, 8, 58_560, 51_272), (768, 16, 119_040, 51_792), (1024, 8, 77_504, 68_168), (1024, 16, 156_416, 68_688)],
)
def test_sizes_are_the_authors(width, num_tokens, v1, v11):
    assert num_parameters(TokenLearner(width, num_tokens, "v1")) == v1
    assert num_parameters(TokenLearner(width, num_tokens, "v1.1")) == v11


def test_the_fuser_has_the_authors_size_and_starts_silent():
    assert num_parameters(TokenFuser(768, 8)) == 54_416
    fuser = TokenFuser(12, 4)
    assert not fuser(torch.randn(2, 3, 4, 12), torch.randn(2, 3, 9, 12)).any()


@torch.no_grad()
def test_the_fuser_writes_a_weighted_sum_of_mixed_tokens_to_every_place():
    fuser = TokenFuser(12, 4)
    torch.nn.init.normal_(fuser.mix.weight)
    learned, features = torch.randn(2, 4, 12), torch.randn(2, 9, 12)
    mixed = torch.einsum("os,bsd->bod", fuser.mix.weight, fuser.norm1(learned)) + fuser.mix.bias[:, None]
    mixed = fuser.norm2(mixed)
    weights = torch.sigmoid(fuser.score(fuser.norm_features(features)))
    torch.testing.assert_close(
        fuser(learned, features), torch.einsum("bns,bsd->bnd", weights, mixed), rtol=1e-4, atol=1e-5
    )


def test_dropout_only_in_training():
    module = TokenLearner(12, 4, dropout=0.5)
    tokens = torch.randn(2, 9, 12)
    assert not torch.equal(module(tokens), module(tokens))
    module.eval()
    assert torch.equal(module(tokens), module(tokens))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"num_tokens": 0}, ("num_tokens", 0, "1 or more")),
        ({"version": "v2"}, ("version", "'v2'", "'v1'")),
        ({"pooling": "avg", "version": "v1"}, ("pooling", "'avg'", "sum, mean")),
        ({"pooling": "mean"}, ("pooling", "'mean'", "sum")),
    ],
)
def test_values_that_cannot_be(settings, parts):
    with refused(*parts):
        TokenLearner(**{"dim": 24, "num_tokens": 4, **settings})
