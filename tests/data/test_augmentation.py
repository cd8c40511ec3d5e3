"""Augmentation: neutral values change nothing, each change does what its name says, and clips do not mix."""

import numpy as np
import pytest
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.augmentation import augment, draw_augmentation
from vidtl.data.changes import Augmentation
from vidtl.runtime.seeding import generator

SIZE = (6, 8)


@pytest.fixture
def rgb() -> torch.Tensor:
    return torch.rand(3, 4, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def applied(rgb: torch.Tensor, *clips: Augmentation) -> torch.Tensor:
    return augment(rgb, clips)


def test_neutral_values_change_nothing(rgb: torch.Tensor) -> None:
    torch.testing.assert_close(applied(rgb, *[Augmentation()] * 3), rgb, atol=1e-6, rtol=0)


def test_each_clip_gets_its_own_change(rgb: torch.Tensor) -> None:
    out = applied(rgb, Augmentation(flip=1), Augmentation(saturation=0), Augmentation())
    torch.testing.assert_close(out[0], rgb[0].flip(-1), atol=1e-6, rtol=0)
    assert (out[1].amax(dim=1) - out[1].amin(dim=1)).max() < 1e-5  # grey: all channels equal
    torch.testing.assert_close(out[2], rgb[2], atol=1e-6, rtol=0)


def test_hue_turns_colours_and_keeps_luma(rgb: torch.Tensor) -> None:
    muted = rgb * 0.2 + 0.4  # far from the limits of the range, where clipping would change the luma
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    out = applied(muted, *[Augmentation(hue=0.3)] * 3)
    assert (out - muted).abs().mean() > 0.01
    torch.testing.assert_close((out * luma).sum(2), (muted * luma).sum(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(applied(muted, *[Augmentation(hue=1.0)] * 3), muted, atol=1e-4, rtol=0)


def test_contrast_keeps_the_mean_and_brightness_moves_it(rgb: torch.Tensor) -> None:
    out = applied(rgb, Augmentation(contrast=0.5), Augmentation(brightness=0.1), Augmentation())
    torch.testing.assert_close(out[0].mean((2, 3)), rgb[0].mean((2, 3)), atol=1e-6, rtol=0)
    assert out[0].std() < rgb[0].std() * 0.6
    assert (out[1] - rgb[1]).mean() > 0.08
    assert out.min() >= 0
    assert out.max() <= 1


def test_frames_of_a_clip_change_alike(rgb: torch.Tensor) -> None:
    still = rgb[:, :1].expand(-1, 4, -1, -1, -1)
    out = applied(still, *[Augmentation(1, 0.1, 1.3, 1.2, 0.1)] * 3)
    assert (out - out[:, :1]).abs().max() == 0


def test_draws_follow_the_probabilities_and_the_key() -> None:
    config = AugmentationConfig(flip_probability=0.5, colour_probability=0.8, grey_probability=0.1)
    draws = np.array([draw_augmentation(config, SIZE, generator(0, index))[:5] for index in range(2000)])
    flip, brightness, saturation, contrast, hue = draws.T
    assert abs(flip.mean() - 0.5) < 0.05
    assert abs((brightness != 0).mean() - 0.8) < 0.05
    assert abs((saturation == 0).mean() - 0.1) < 0.03
    assert np.abs(hue).max() <= config.hue
    assert 1 - config.contrast <= contrast.min() < contrast.max() <= 1 + config.contrast
    assert draw_augmentation(config, SIZE, generator(0, 7)) == Augmentation(*draws[7])


def test_switching_one_change_off_leaves_the_others() -> None:
    both = AugmentationConfig(flip_probability=0.5, colour_probability=0.5)
    colour_only = AugmentationConfig(flip_probability=0.0, colour_probability=0.5)
    for index in range(20):
        first, second = (draw_augmentation(config, SIZE, generator(0, index)) for config in (both, colour_only))
        assert first._replace(flip=0) == second._replace(flip=0)
