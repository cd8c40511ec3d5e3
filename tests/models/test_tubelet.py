"""Tubelets are a strided Conv3d, and frames are taken where the reference takes them."""

import pytest
import torch

from vidtl.config import ClipConfig, ModelConfig
from vidtl.errors import UserError
from vidtl.models.tubelet import TubeletEmbedding, tubelet_grid, uniform_frames

CLIP = ClipConfig(num_frames=6, frame_size=(12, 20))


@torch.no_grad()
@pytest.mark.parametrize("tubelet", [(1, 4, 4), (2, 4, 4), (3, 6, 4), (6, 12, 20)])
def test_tubelets_are_a_convolution_whose_stride_is_its_kernel(tubelet):
    embed = TubeletEmbedding(ModelConfig(tubelet=tubelet), CLIP, width=10)
    conv = torch.nn.Conv3d(3, 10, tubelet, stride=tubelet)
    embed.proj.weight.copy_(conv.weight.reshape(10, -1))
    embed.proj.bias.copy_(conv.bias)
    clip = torch.randn(2, 6, 3, 12, 20)
    expected = conv(clip.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(embed(clip), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_uniform_sampling_takes_patches_of_single_frames():
    embed = TubeletEmbedding(ModelConfig(tubelet=(2, 4, 4), tubelet_sampling="uniform"), CLIP, width=10)
    assert embed.proj.weight.shape == (10, 3 * 4 * 4)
    clip = torch.randn(1, 6, 3, 12, 20)
    tokens = embed(clip)
    assert tokens.shape == (1, 3, 15, 10)
    changed = clip.clone()
    taken = uniform_frames(6, 3).tolist()
    changed[:, [frame for frame in range(6) if frame not in taken]] = 0
    assert torch.equal(embed(changed), tokens)


def test_uniform_frames_follow_the_reference():
    assert uniform_frames(32, 8).tolist() == [4, 7, 11, 14, 18, 21, 25, 28]
    assert uniform_frames(3, 8).tolist() == [0, 1, 2]
    assert uniform_frames(4, 4).tolist() == [0, 1, 2, 3]


def test_the_grid_of_the_paper():
    assert tubelet_grid(ModelConfig(), ClipConfig()) == (16, 14, 14)


@pytest.mark.parametrize(
    ("tubelet", "message"),
    [
        ((4, 4, 4), r"clip\.num_frames is 6; allowed: multiples of the tubelet's 4 frames"),
        ((2, 5, 4), r"clip\.frame_size is \[12, 20\]; allowed: a height that is a multiple of the tubelet's 5 pixels"),
        (
            (2, 4, 16),
            r"clip\.frame_size is \[12, 20\]; allowed: a width that is a multiple of .* 16 pixels, such as 16",
        ),
    ],
)
def test_clips_must_be_whole_numbers_of_tubelets(tubelet, message):
    with pytest.raises(UserError, match=message):
        tubelet_grid(ModelConfig(tubelet=tubelet), CLIP)


def test_a_clip_of_another_shape_is_refused():
    embed = TubeletEmbedding(ModelConfig(tubelet=(2, 4, 4)), CLIP, width=10)
    with pytest.raises(UserError, match=r"input has shape \[1, 3, 6, 12, 20\]; allowed: .* \[6, 3, 12, 20\]"):
        embed(torch.zeros(1, 3, 6, 12, 20))
