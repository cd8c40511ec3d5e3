"""Tubelets, sampled frames, and position embeddings by their formulas and after resizing."""

import math

import numpy as np
import pytest
import torch

from tests.refusals import refused
from vidtl.models import embedding as module
from vidtl.models.embedding import Grid, PositionEmbedding, TubeletEmbedding, resize_positions, sincos_1d, sincos_3d

WIDTH = 14


@torch.no_grad()
@pytest.mark.parametrize("tubelet", [(1, 4, 4), (2, 4, 4), (3, 6, 4), (6, 12, 20)])
def test_tubelets_equal_a_strided_convolution(tubelet):
    embed, conv = TubeletEmbedding(tubelet, width=10), torch.nn.Conv3d(3, 10, tubelet, stride=tubelet)
    embed.proj.weight.copy_(conv.weight.reshape(10, -1))
    embed.proj.bias.copy_(conv.bias)
    clip = torch.randn(2, 6, 3, 12, 20)
    expected = conv(clip.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(embed(clip), expected, rtol=1e-4, atol=1e-5)


def test_log_energies_are_means_over_cells():
    clip = np.random.default_rng(0).random((2, 4, 3, 8, 12), np.float32)  # three frames and their background
    gray = clip.mean(axis=2)
    changes = gray[:, :3] - gray[:, 3:], gray[:, [1, 1, 2]] - gray[:, [0, 0, 1]]
    means = np.abs(np.stack(changes, axis=2)).reshape(2, 3, 2, 2, 4, 3, 4).mean(axis=(4, 6))
    np.testing.assert_allclose(module.log_energies(torch.from_numpy(clip)), np.log(1 + 85 * means) - 1, rtol=1e-4)


def test_uniform_frames_follow_the_reference():
    assert module.uniform_frames(32, 8).tolist() == [4, 7, 11, 14, 18, 21, 25, 28]
    assert module.uniform_frames(3, 8).tolist() == [0, 1, 2]
    assert module.uniform_frames(4, 4).tolist() == [0, 1, 2, 3]


def test_grid_of_tubelets():
    assert module.tubelet_grid((2, 16, 16), 32, (224, 224)) == (16, 14, 14)
    for tubelet, parts in (
        ((4, 4, 4), ("clip.num_frames", 6, "4 frames", "[4, 4, 4]")),
        ((2, 5, 4), ("clip.frame_size", [12, 20], "height", "5 pixels", 10)),
        ((2, 4, 16), ("clip.frame_size", [12, 20], "width", "16 pixels", 16)),
    ):
        with refused(*parts):
            module.tubelet_grid(tubelet, 6, (12, 20))


def test_fixed_positions_follow_the_formulas():
    table = sincos_1d(50, WIDTH)
    for position, column in ((0, 0), (7, 4), (49, 13)):
        angle = position / 10000 ** (2 * (column // 2) / WIDTH)
        expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
        assert table[position, column].item() == pytest.approx(expected, abs=1e-6)
    t, h, w = 1, 2, 3
    angles = [[place, place / 100] for place in (t, w, h)]
    row = [function(angle) for pair in angles for function in (math.sin, math.cos) for angle in pair]
    grid = Grid(2, 3, 4)
    assert sincos_3d(grid, WIDTH).reshape(*grid, WIDTH)[t, h, w].tolist() == pytest.approx([*row, 0, 0], abs=1e-6)
    # They are not saved, and zero for a class token.
    embedding = PositionEmbedding(grid, WIDTH, "sincos_3d", num_prefix=1)
    assert not embedding.state_dict()
    assert embedding.weight.shape == (25, WIDTH)
    assert not embedding.weight[0].any()


def test_rows_of_one_timestep_are_shared_by_all():
    embedding = PositionEmbedding(Grid(1, 2, 2), WIDTH)
    assert torch.equal(embedding(torch.zeros(2, 3, 4, WIDTH)), embedding.weight.expand(2, 3, 4, WIDTH))
    embedding = PositionEmbedding(Grid(3, 2, 2), WIDTH)
    assert torch.equal(embedding(torch.zeros(1, 3, 4, WIDTH)).flatten(0, 2), embedding.weight)


@pytest.mark.parametrize("target", [Grid(4, 5, 5), Grid(8, 3, 6), Grid(2, 7, 2)])
def test_resizing_equals_linear_zoom_of_scipy(target):
    zoom = pytest.importorskip("scipy.ndimage").zoom
    source = Grid(4, 5, 5)
    rows = torch.randn(1 + source.size, WIDTH)
    ours = resize_positions(rows, source, PositionEmbedding(target, WIDTH, num_prefix=1), "positions")
    factors = [to / of for to, of in zip(target, source, strict=True)]
    theirs = zoom(rows[1:].reshape(*source, WIDTH).numpy(), (*factors, 1), order=1)
    assert torch.equal(ours[0], rows[0])
    np.testing.assert_allclose(ours[1:].reshape(*target, WIDTH).numpy(), theirs, atol=1e-5)


def test_image_positions_are_repeated_along_time_and_misfits_refused():
    rows, image = torch.randn(1 + 9, WIDTH), Grid(1, 3, 3)
    tiled = resize_positions(rows, image, PositionEmbedding(Grid(4, 3, 3), WIDTH), "positions")
    torch.testing.assert_close(tiled, rows[1:].repeat(4, 1))
    with refused("positions", "7 rows", image, 9):
        resize_positions(rows[:7], image, PositionEmbedding(image, WIDTH), "positions")
    fitted = resize_positions(rows, image, PositionEmbedding(image, WIDTH, num_prefix=3), "positions")
    assert torch.equal(fitted, torch.cat([rows[:1], torch.zeros(2, WIDTH), rows[1:]]))
