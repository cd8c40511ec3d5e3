"""Augmentation: neutral values change nothing, each change does what its name says, and clips do not mix."""

import dataclasses

import numpy as np
import pytest
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.augmentation import augment, draw_augmentation, erase
from vidtl.data.changes import Augmentation, Erasure, Operation
from vidtl.data.sampling import Box
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


def test_each_clip_gets_its_own_operations_before_its_colours(rgb: torch.Tensor) -> None:
    clips = [Augmentation(), Augmentation(operations=(Operation("invert"),), brightness=0.1), Augmentation(flip=1)]
    out = applied(rgb, *clips)
    levels = (rgb * 255).round() / 255
    torch.testing.assert_close(out[0], rgb[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(out[1], (1 - levels[1] + 0.1).clamp(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[2], rgb[2].flip(-1), atol=1e-6, rtol=0)


def test_nothing_to_do_costs_nothing(rgb: torch.Tensor) -> None:
    assert applied(rgb, *[Augmentation()] * 3) is rgb


def test_erasing_puts_noise_into_the_same_box_of_all_frames() -> None:
    neutral = torch.full((3, 16, 3, 40, 40), 7.0)
    clips = [Augmentation(erasure=Erasure(Box(4, 10, 20, 25), seed)) for seed in (5, 6)] + [Augmentation()]
    out = erase(neutral.clone(), clips)
    changed = out != 7
    assert changed[:2, :, :, 4:24, 10:35].all()
    assert changed.sum() == 2 * 16 * 3 * 20 * 25
    noise = out[:, :, :, 4:24, 10:35]
    assert abs(noise[:2].mean()) < 0.02
    assert abs(noise[:2].std() - 1) < 0.02
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0, 0], noise[0, 1])
    alone = erase(neutral[:1].clone(), clips[1:2])
    assert torch.equal(alone[0], out[1])  # whatever its neighbours


def test_erased_boxes_follow_the_published_ranges() -> None:
    config = AugmentationConfig(erase_probability=0.25)
    drawn = [draw_augmentation(config, (112, 112), generator(1, index)).erasure for index in range(4000)]
    boxes = np.array([erasure.box for erasure in drawn if erasure])
    assert abs(len(boxes) / 4000 - 0.25) < 0.03
    assert len({erasure.seed for erasure in drawn if erasure}) == len(boxes)
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 112**2, boxes[:, 2] / boxes[:, 3]
    assert 0.018 < areas.min() < 0.03
    assert 0.3 < areas.max() < 0.35
    assert 0.27 < aspects.min() < 0.5
    assert 2 < aspects.max() < 3.7
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 112).all()


@pytest.mark.parametrize("change", ["erase_probability", "rand_augment_layers", "colour_probability"])
def test_switching_a_change_on_leaves_the_others(change: str) -> None:
    plain = AugmentationConfig(flip_probability=0.5, grey_probability=0.3)
    more = dataclasses.replace(plain, **{change: 1})
    for index in range(20):
        first, second = (draw_augmentation(config, SIZE, generator(0, index)) for config in (plain, more))
        assert (first.flip, first.saturation == 0) == (second.flip, second.saturation == 0)
    on = dataclasses.replace(more, erase_probability=1.0)
    with_layers = dataclasses.replace(on, rand_augment_layers=3)
    for index in range(20):
        first, second = (draw_augmentation(config, (64, 64), generator(0, index)) for config in (on, with_layers))
        assert first.erasure == second.erasure
