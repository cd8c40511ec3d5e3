"""Fixed positions follow their formulas; learned ones resize as scipy's linear zoom does."""

import math

import numpy as np
import pytest
import torch

from vidtl.models.embedding import Grid, PositionEmbedding, resize_positions, sincos_1d, sincos_3d

WIDTH = 14


def test_sequence_positions_follow_the_formula():
    table = sincos_1d(50, WIDTH)
    for position, column in ((0, 0), (7, 4), (49, 13)):
        angle = position / 10000 ** (2 * (column // 2) / WIDTH)
        expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
        assert table[position, column].item() == pytest.approx(expected, abs=1e-6)


def test_grid_positions_follow_the_formula():
    grid = Grid(2, 3, 4)
    table = sincos_3d(grid, WIDTH).reshape(*grid, WIDTH)
    t, h, w = 1, 2, 3
    row = [
        function(place * 10000**-frequency)
        for place in (t, w, h)
        for function in (math.sin, math.cos)
        for frequency in (0, 0.5)
    ]
    assert table[t, h, w].tolist() == pytest.approx([*row, 0, 0], abs=1e-6)


def test_fixed_positions_are_not_saved_and_a_class_token_has_none_in_the_grid():
    embedding = PositionEmbedding(Grid(2, 3, 4), WIDTH, "sincos_3d", class_token=True)
    assert not embedding.state_dict()
    assert embedding.weight.shape == (25, WIDTH)
    assert not embedding.weight[0].any()


def test_rows_of_one_timestep_are_shared_by_all():
    embedding = PositionEmbedding(Grid(1, 2, 2), WIDTH)
    out = embedding(torch.zeros(2, 3, 4, WIDTH))
    assert torch.equal(out, embedding.weight.expand(2, 3, 4, WIDTH))
    embedding = PositionEmbedding(Grid(3, 2, 2), WIDTH)
    assert torch.equal(embedding(torch.zeros(1, 3, 4, WIDTH)).flatten(0, 2), embedding.weight)


@pytest.mark.parametrize("target", [Grid(4, 5, 5), Grid(8, 3, 6), Grid(2, 7, 2)])
def test_resizing_is_scipys_linear_zoom(target):
    zoom = pytest.importorskip("scipy.ndimage").zoom
    source = Grid(4, 5, 5)
    rows = torch.randn(1 + source.size, WIDTH)
    ours = resize_positions(rows, source, PositionEmbedding(target, WIDTH, class_token=True), "positions")
    volume = rows[1:].reshape(*source, WIDTH).numpy()
    factors = [to / of for to, of in zip(target, source, strict=True)]
    theirs = zoom(volume, (*factors, 1), order=1)
    assert torch.equal(ours[0], rows[0])
    np.testing.assert_allclose(ours[1:].reshape(*target, WIDTH).numpy(), theirs, atol=1e-5)


def test_an_image_grid_is_repeated_along_time():
    rows = torch.randn(1 + 9, WIDTH)
    tiled = resize_positions(rows, Grid(1, 3, 3), PositionEmbedding(Grid(4, 3, 3), WIDTH), "positions")
    torch.testing.assert_close(tiled, rows[1:].repeat(4, 1))


def test_rows_that_fit_no_grid_are_refused():
    with pytest.raises(ValueError, match="has 7 rows, but a grid of 1x3x3 has 9"):
        resize_positions(torch.zeros(7, WIDTH), Grid(1, 3, 3), PositionEmbedding(Grid(1, 3, 3), WIDTH), "positions")
    with pytest.raises(ValueError, match="no row for the class token"):
        resize_positions(
            torch.zeros(9, WIDTH), Grid(1, 3, 3), PositionEmbedding(Grid(1, 3, 3), WIDTH, class_token=True), "positions"
        )
