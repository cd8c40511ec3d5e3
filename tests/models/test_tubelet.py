"""Tubelets are a strided Conv3d, and frames are taken where the reference takes them."""

import pytest
import torch

from tests.refusals import refused
from vidtl.models.embedding import TubeletEmbedding, tubelet_grid, uniform_frames


@torch.no_grad()
@pytest.mark.parametrize("tubelet", [(1, 4, 4), (2, 4, 4), (3, 6, 4), (6, 12, 20)])
def test_tubelets_are_a_convolution_whose_stride_is_its_kernel(tubelet):
    embed = TubeletEmbedding(tubelet, width=10)
    conv = torch.nn.Conv3d(3, 10, tubelet, stride=tubelet)
    embed.proj.weight.copy_(conv.weight.reshape(10, -1))
    embed.proj.bias.copy_(conv.bias)
    clip = torch.randn(2, 6, 3, 12, 20)
    expected = conv(clip.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(embed(clip), expected, rtol=1e-4, atol=1e-5)


def test_uniform_frames_follow_the_reference():
    assert uniform_frames(32, 8).tolist() == [4, 7, 11, 14, 18, 21, 25, 28]
    assert uniform_frames(3, 8).tolist() == [0, 1, 2]
    assert uniform_frames(4, 4).tolist() == [0, 1, 2, 3]


def test_the_grid_of_the_paper():
    assert tubelet_grid((2, 16, 16), 32, (224, 224)) == (16, 14, 14)


@pytest.mark.parametrize(
    ("tubelet", "parts"),
    [
        ((4, 4, 4), ("clip.num_frames", 6, "4 frames", "[4, 4, 4]")),
        ((2, 5, 4), ("clip.frame_size", [12, 20], "height", "5 pixels", 10)),
        ((2, 4, 16), ("clip.frame_size", [12, 20], "width", "16 pixels", 16)),
    ],
)
def test_clips_must_be_whole_numbers_of_tubelets(tubelet, parts):
    with refused(*parts):
        tubelet_grid(tubelet, 6, (12, 20))
