"""TokenLearner and TokenFuser as modules: shapes, maps, published sizes, and grids that are not square."""

import pytest
import torch
from torch.nn import functional

from tests.refusals import refused
from vidtl.models.complexity import count_parameters
from vidtl.models.token_learner import TokenFuser, TokenLearner


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
